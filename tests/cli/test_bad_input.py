"""Bad input: the right sentence in one line, exit code 2, and nothing is written or lost."""

import importlib.util
from pathlib import Path

import pytest

import projects
from for_each import for_each
from projects import loads
from unweave.cli.audits import run as audit_run
from unweave.cli.inputs.out import CLAIM

FORGET = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")


class TestNames:
    @for_each(
        ("arguments", "nearest"),
        [
            (("forget", "PROJECT", "--class", 0, "--method", "lurr"), "'lurr'.*'lur'"),
            (("forget", "PROJECT", "--class", 0, "--method", "lur", "--set", "how.lrr=1"), "'lrr'.*'lr'"),
            (("forget", "PROJECT", "--class", 0, "--method", "ct", "--set", "lr=1"), "'lr'.*mean 'how.lr'"),
            (("forget", "PROJECT", "--class", 0, "--set", "lur.mode=nestd"), "'nestd'.*'nested'"),
            (("forget", "PROJECT", "--clas", 0), "--clas.*--class"),
            (("forgt", "PROJECT"), "forgt.*forget"),
            (("bench", "digits-trac"), "'digits-trac'.*'digits-trace'"),
            (("bench", "digits-trace", "--methods", "lur,salum"), "'salum'.*'salun'"),
            (("check", "PROJECT", "--methods", "fintune"), "'fintune'.*'finetune'"),
            (("demo", "--quik"), "--quik.*--quick"),
            (("demo", "digit"), "digit.*digits"),
            (("methods", "scisorhands"), "'scisorhands'.*'scissorhands'"),
            (("methods", "lur:recovr"), "'recovr'.*'recover'"),
            (("forget", "PROJECT", "--class", 0, "--method", "lur:recovr"), "'recovr'.*'recover'"),
            (
                ("bench", "digits-trace", "--methods", "shrink-pertrub:lur"),
                "'shrink-pertrub'.*'shrink-perturb'",
            ),
            (("forget", "PROJECT", "--class", 0, "--set", "lur.alfa=1"), "'alfa' in .*lur .*'alpha'"),
            (("forget", "PROJECT", "--class", 0, "--set", "alpha=1"), "'alpha' in .*'lur.alpha'"),
            (
                ("forget", "PROJECT", "--class", 0, "--set", 'lur.forget={"kind":"clamped","kap":1}'),
                "'kap' in .*'cap'",
            ),
            (("forget", "PROJECT", "--class", 0, "--set", "lur.forget=clampd"), "'clampd'.*'clamped'"),
            (("forget", "PROJECT", "--class", 0, "--set", "recover.until.nea=1"), "'nea' in .*'near'"),
            (("bench", "table", "x", "--format", "markdwn"), "markdwn.*markdown"),
        ],
    )
    def test_the_nearest_known_one_is_named(self, refused, project, arguments, nearest):
        refused(nearest, *(project if each == "PROJECT" else each for each in arguments))

    def test_of_load(self, refused, tmp_path):
        change = loads("given(calibrate=0.5)")
        refused("'calibrate'.*'calibration'", "check", projects.project(tmp_path / "p", change))

    def test_of_a_recipe(self, refused, tmp_path):
        place = Path(projects.recipe(tmp_path))
        place.write_text(place.read_text().replace("steps", "stepps"))
        refused("'stepps'.*'steps'", "bench", place)


class TestPipelines:
    @for_each(
        ("name", "sentence"),
        [
            ("lur:", "names joined by ':', such as 'lur:recover', found 'lur:'"),
            (":recover", "names joined by ':', such as 'lur:recover', found ':recover'"),
            (":", "names joined by ':'"),
            ("lur::recover", "names joined by ':'"),
            ("original:recover", "not be a reference, found 'original'"),
            ("retrain:recover", "not be a reference, found 'retrain'"),
            ("short-retrain:recover", "not be a reference, found 'short-retrain'"),
            ("lur:lur", "need different names, found lur, lur"),
            ("recover:lur:recover", "need different names, found recover, lur, recover"),
        ],
    )
    @for_each("verb", ["forget", "check", "bench", "methods", "recipe"])
    def test_what_is_none(self, refused, tmp_path, verb, name, sentence):
        place = Path(projects.recipe(tmp_path))
        if verb == "recipe":
            place.write_text(f'headline = "{name}"\n{place.read_text()}')
        arguments = {
            "forget": (place, "--method", name),
            "check": (place, "--methods", name),
            "bench": (place, "--methods", f"finetune,{name}"),
            "methods": (name,),
            "recipe": (place,),
        }
        refused(sentence, "bench" if verb == "recipe" else verb, *arguments[verb])

    def test_a_stage_for_models_of_another_family(self, refused, tmp_path):
        place = projects.recipe(tmp_path)
        sentence = "'esd' is for models of the family diffusion"
        refused(sentence, "forget", place, "--method", "lur:esd")
        refused(sentence, "check", place, "--methods", "esd:recover")
        refused(sentence, "bench", place, "--methods", "esd:recover")
        refused("'ssd' is for models of the family classifier",
                "bench", "digit-images-class", "--methods", "ssd:recover")  # fmt: skip

    def test_a_target_for_models_of_another_family(self, refused, tmp_path):
        place = Path(projects.recipe(tmp_path))
        sentence = "lur.forget = 'surrogate' is for models of the family diffusion"
        refused(sentence, "forget", place, "--set", "lur.forget=surrogate")
        refused("neggrad\\+.forget = 'surrogate'",
                "forget", place, "--method", "neggrad+", "--set", "forget.kind=surrogate")  # fmt: skip
        place.write_text(place.read_text() + '\n[methods."lur:recover"]\nlur.forget = "surrogate"\n')
        refused(sentence, "bench", place)
        for target in ("uniform", "quantile", "estimate"):
            change = ("--method", "lur", "--set", f"forget={target}")
            sentence = f"forget = '{target}' is for models of the family classifier"
            refused(sentence, "forget", "digit-images-class", *change)

    @for_each(
        ("setting", "sentence"),
        [
            (
                "lur.foo=1",
                "'foo' in .*lur.*known: mode, alpha, weight, forget, retain, where, rule, feed, how",
            ),
            ("lur.forget.kind=clampd", "forget.kind must be one of .*'clampd'.*'clamped'"),
            ("lur.alpha=-1", r"alpha must be in \[0, inf\), found -1"),
            ("lur.alpha.times=-1", r"alpha: times must be in \[0, inf\), found -1"),
            ('lur.forget={"kind":"clamped","cap":0}', r"cap must be in \(0, inf\), found 0"),
            ("recover.until.near=0", r"near must be in \(0, inf\), found 0"),
            ("recover=1", "recover must be a table, found 1"),
        ],
    )
    def test_settings_of_a_stage(self, refused, project, setting, sentence):
        refused(sentence, "forget", project, "--random", 0.1, "--set", setting)

    @for_each("setting", ["alpha_in=1", "recover_in=steps", "redraw=0.1", "keep=0.5", "near=1"])
    def test_settings_of_earlier_versions(self, refused, project, setting):
        name = setting.partition("=")[0]
        refused(f"unknown key '{name}' in", "forget", project, "--random", 0.1, "--set", f"lur.{setting}")


class TestRanges:
    @for_each("fraction", ["0", "1", "1.5", "-0.1", "nan"])
    def test_fraction(self, refused, project, fraction):
        refused(r"in \(0, 1\), found", "forget", project, f"--random={fraction}")

    def test_fraction_of_a_recipe(self, refused, tmp_path):
        place = Path(projects.recipe(tmp_path))
        place.write_text(place.read_text().replace("fraction = 0.1", "fraction = 1.5"))
        refused(r"fraction must be in \(0, 1\), found 1.5", "bench", place)

    @for_each(
        ("flag", "value", "sentence"),
        [
            ("--seeds", 0, "seeds must be in"),
            ("--seeds", 99, "seeds must be in"),
            ("--tune", -1, "--tune must be at least 1"),
            ("--tune", 0, "--tune must be at least 1 trial, found 0: leave it out"),
            ("--against", "retrain", "give it with --tune or --tuned"),
            ("--against", "retran", "retran"),
            ("--jobs", 0, "--jobs must be at least 1"),
            ("--seed", -1, "--seed must be at least 0"),
            ("--seed", 1000, "each seed has one use, found 1000"),
            ("--device", "cudda", "--device must be"),
            ("--seeds", "two", "two"),
            ("--methods", ",", "at least one method"),
            ("--tuned", "nowhere", "found none at nowhere"),
        ],
    )
    def test_flags_of_bench(self, refused, tmp_path, flag, value, sentence):
        refused(sentence, "bench", projects.recipe(tmp_path), flag, value)

    def test_a_run_is_not_its_folder_of_searches(self, refused, tmp_path, here):
        (here / "earlier" / "tuning").mkdir(parents=True)
        (here / "earlier" / CLAIM).write_text("{}")
        flags = ("--tuned", "earlier")
        refused("found a run itself: name earlier/tuning", "bench", projects.recipe(tmp_path), *flags)

    @pytest.mark.parametrize(("missing", "sentence"), [("optuna", "optuna"), ("fcntl", "POSIX file locks")])
    def test_a_search_without_what_it_needs(self, refused, tmp_path, monkeypatch, missing, sentence):
        spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else spec(name))
        refused(f"--tune needs {sentence}", "bench", projects.recipe(tmp_path), "--tune", 2)

    @for_each(
        ("flags", "sentence"),
        [
            (("--storage", "sqlite:///x"), "--storage keeps the trials of a search: give it with --tune"),
            (("--tune", 1, "--storage", "nowhere"), "--storage must be a URL such as postgresql"),
            (
                ("--tune", 1, "--storage", "sqlite:////no/x"),
                "sqlite:////no/x does not answer: unable",
            ),
            (("--tune", 1, "--storage", "sqlite:///x", "--storage", "sqlite:///y"), "storage.*multiple"),
        ],
    )
    def test_a_storage(self, refused, tmp_path, flags, sentence):
        pytest.importorskip("optuna")
        refused(sentence, "bench", projects.recipe(tmp_path), *flags)

    @for_each(
        ("flags", "sentence"),
        [
            (("--jobs", 2, "--ray", "auto"), "give one$"),
            (("--cores", 2), "give them with --ray"),
            (("--ray", "auto", "--cores", 0), "--cores must be at least 1, found 0"),
            (("--ray", "auto", "--gpus", 1.5), r"--gpus must be in \(0, 1\], .* found 1.5"),
            (("--ray", "auto", "--gpus", 0.5), "--gpus needs --device cuda, found cpu"),
            (("--ray", "auto", "--device", "cpu:0"), "Ray chooses .* give --device cpu, found cpu:0"),
            (("--ray", "somewhere"), "--ray must be auto or HOST:PORT, found 'somewhere'"),
            (("--ray", "127.0.0.1:1"), "no cluster answers at 127.0.0.1:1: .*refused"),
            (("--ray", "127.0.0.1:99999"), "no cluster answers at 127.0.0.1:99999"),
        ],
    )
    def test_a_cluster(self, refused, tmp_path, monkeypatch, flags, sentence):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # Ray need not be installed
        refused(sentence, "bench", projects.recipe(tmp_path), *flags)

    @for_each(("method", "stage"), [("lur", ""), ("lur:recover", "recover."), ("kde", "")])
    def test_states_that_are_not_saved(self, refused, tmp_path, method, stage):
        place = projects.project(tmp_path / "mine")
        refused(
            f"--save-every saves no state of optimizer=adamw8bit, found in {stage}how of {method}: leave",
            *("forget", place, "--random", 0.1, "--method", method, "--save-every", 2),
            *("--set", f"{stage}how.optimizer=adamw8bit"),
        )

    def test_a_cluster_of_trainings(self, refused, tmp_path, here, run, monkeypatch):
        place = projects.project(tmp_path / "mine")
        flags = ("--random", 0.1, "--method", "finetune", "--set", "how.steps=2", "--quiet", "--out", "done")
        assert run("forget", place, *flags).code == 0
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # Ray need not be installed
        monkeypatch.setattr(audit_run, "collect_answer_pair", None)  # nothing is computed before
        for verb in (("qualify", place), ("audit", "done", "--references", 1)):
            refused("no cluster answers at 127.0.0.1:1: .*refused", *verb, "--ray", "127.0.0.1:1", "--quiet")
        assert not (here / "done" / "audit").exists() and not (here / "unweave-qualification").exists()
        request = here / "done" / "forget.json"
        request.write_text(request.read_text().replace('"device": null', '"device": "cpu:0"'))
        refused("give --device cpu, found cpu:0", "audit", "done", "--ray", "127.0.0.1:1", "--quiet")

    def test_a_cluster_without_ray(self, refused, tmp_path, monkeypatch):
        spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else spec(name))
        refused("--ray needs Ray, .* 'unweave.ray.'", "bench", projects.recipe(tmp_path), "--ray", "auto")

    def test_a_model_that_does_not_take_the_data(self, refused, tmp_path):
        recipe = Path(projects.recipe(tmp_path))
        recipe.write_text(recipe.read_text().replace('"mlp"', '"conv"').replace("settings", "# settings"))
        refused("the model can't be run on 'digits': RuntimeError", "bench", recipe)


class TestIds:
    @for_each(
        ("ids", "sentence"),
        [
            ("r0/3,r0/90", "found 1 of 2 that is neither: 'r0/90'$"),
            ("r1/3", "found 1 of 1 that is neither: 'r1/3'$"),
            ("r0/3,x,r0/5,y", "found 2 of 4 that are neither: 'x', 'y'$"),
            (",".join("abcdefg"), "found 7 of 7 that are neither: 'a', 'b', 'c', 'd', 'e', ...$"),
            ("r0/3,r0/5,r0/3", "forgotten once, found 'r0/3' twice$"),
            ("r0/3,r0/5,r0/3,r0/5,r0/5", "forgotten once, found 2 of 5 again: 'r0/3', 'r0/5'$"),
            (",".join(f"r0/{i}" for i in range(90)), "some but not all of the 90"),
            ("nowhere.txt", "no such file"),
        ],
    )
    def test_names(self, refused, project, ids, sentence):
        refused(sentence, "forget", project, "--ids", ids)

    @pytest.mark.parametrize(
        ("ids", "sentence"),
        [
            ("3,200", r"0\.\.199, found 200"),
            ("-1", r"0\.\.199, found -1"),
            ("7,7", "found position 7 twice"),
            (",".join(map(str, range(200))), "some but not all of the 200"),
            ("first", "'first': no such file"),
            ("--5", "'--5': no such file"),
            ("3,²", "'²': no such file"),
            (",".join(map(str, range(199))) + ",x", "found 'x': no such file"),
        ],
    )
    def test_positions(self, refused, tmp_path, ids, sentence):
        refused(sentence, "forget", projects.recipe(tmp_path), f"--ids={ids}")

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("", "is empty"),
            ("id\n", "is empty"),
            ("r0/1\nr0/91\nx\n", "found 2 of 3 that are not: 'r0/91', 'x'$"),
        ],
    )
    def test_files(self, refused, project, tmp_path, content, sentence):
        path = tmp_path / "ids.csv"
        path.write_text(content)
        refused(sentence, "forget", project, "--ids", path)

    def test_a_file_that_is_no_text(self, refused, project, tmp_path):
        path = tmp_path / "ids.txt"
        path.write_bytes(b"\xff\xfe\x00")
        refused("text file with one id a line", "forget", project, "--ids", path)

    @for_each(
        ("flags", "sentence"),
        [
            ((), "--ids, --class or --random"),
            (("--class", 0, "--random", 0.1), "in one way, found --class and --random"),
            (("--class", 7), r"0\.\.2, found 7"),
            (("--random", 0.9999), "some but not all"),
        ],
    )
    def test_the_request(self, refused, project, flags, sentence):
        refused(sentence, "forget", project, *flags)

    def test_everything_is_one_class(self, refused, tmp_path):
        change = loads("given(train=Records(90, 0, classes=1))")
        refused("some but not all", "forget", projects.project(tmp_path / "p", change), "--class", 0)

    @pytest.mark.parametrize(
        ("ids", "sentence"),
        [
            ("['a', 'b']", "90 training examples, found 2"),
            ("['a'] * 90", "unique, found 'a'"),
            ("list(range(90))", "strings, found 0"),
            ("'abc'", "a list with a string per training example"),
        ],
    )
    def test_beside_the_data(self, refused, tmp_path, ids, sentence):
        change = loads(f"given(ids={ids})")
        refused(sentence, "check", projects.project(tmp_path / "p", change))


class TestProjects:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (loads("given(train=Records(90, 0, offset=1))"), r"'train' must be in 0\.\.2.*found 3"),
            (loads("given(test=Records(90, 1, offset=-1))"), "must have an integer of at least 0"),
            (loads("given(model=Net(frozen=True))"), "no trainable weights"),
            (loads("given(model=Net(broken=True))"), "NaN or infinity in 'first.weight'"),
            (
                loads("given(model=Net(classes=1))"),
                r"for classifiers, .* found one number per example, of shape \[2, 1\]: .* \[0, z\]",
            ),
            (loads("given(model=Flat())"), r"found one number per example, of shape \[2\]: .*regression"),
            (loads("given(model=Tokens())"), r"for classifiers, .* \[2, class\], found \[2, 5, 3\]"),
            (loads("given(train=Labelled(0.3))"), "found 0.3: .* for classifiers, not for regression"),
            (loads("given(train=Labelled(torch.tensor([0., 1., 1.])))"), "found 3 numbers: .*several labels"),
            (loads("given(model=nn.Linear(3, 3))"), "can't be run on 'train': TypeError"),
            (loads("given(model='net.pt')"), "must be an nn.Module, found str"),
            (loads("given(train=DataLoader(Records(9, 0)))"), "found a DataLoader: give its data set"),
            (loads("given(train=[1, 2])"), "'train' must be a torch Dataset, found list"),
            (loads("{'model': Net()}"), "must return the key 'train', found model"),
            (loads("Net()"), "must return a dict of model, train and test, found Net"),
            (loads("{}['gone']"), r"load\(\) of .*project.py, line \d+ raised KeyError: 'gone'"),
            ("load = None", r"must define load\(\)"),
            ("load = 3", "load in .* must be a function, found int"),
            ("import nowhere_to_be_found", "raised ModuleNotFoundError"),
            ("def load(:", "raised SyntaxError"),
            (loads("given(calibration=1.5)"), r"'calibration' must be .* found 1.5"),
            (loads("given(calibration=[0, 0])"), "each once"),
            (loads("given(calibration=[500])"), r"0\.\.119"),
        ],
    )
    def test_what_load_returns(self, refused, tmp_path, change, sentence):
        place = projects.project(tmp_path / "p", f"{OTHER_TASKS}\n\n{change}")
        refused(sentence, "forget", place, "--random", 0.1)

    @for_each("model", ["nowhere.py", "nowhere.toml", "nowhere", "digits-clas"])
    def test_a_model_that_is_not_there(self, refused, model):
        refused("found no such file|MODEL must be", "check", model)

    def test_retrain_without_train(self, refused, tmp_path):
        place = projects.project(tmp_path / "p", "train = None")
        refused(r"needs train\(dataset, seed\)", "forget", place, "--random", 0.1, "--method", "retrain")

    def test_a_train_that_fails_when_audited(self, run, here, listed, tmp_path):
        place = projects.project(tmp_path / "p", "def train(dataset, seed):\n    return None")
        assert run("forget", place, "--random", 0.1, *FORGET, "--out", tmp_path / "run").code == 0
        files = listed(tmp_path)
        result = run("audit", tmp_path / "run", "--quiet")
        assert result.code == 3 and "must return an nn.Module, found NoneType" in result.error
        assert listed(tmp_path) == files


class TestModes:
    """Models on which a mode can't be right."""

    def test_bf16_weights(self, refused, tmp_path):
        place = projects.project(tmp_path / "p", loads("given(model=Net(torch.bfloat16))"))
        refused(
            r"float32 weights, found first.weight in torch.bfloat16: .* load the model in float32 "
            r"\(model.float\(\)\) .* and then set precision",
            "forget",
            place,
            "--random",
            0.1,
            "--set",
            "lur.how.precision=bf16",
            "--quiet",
        )

    def test_dropout_under_double_backward(self, refused, tmp_path):
        place = projects.project(tmp_path / "p", loads("given(model=Net(dropout=0.5))"))
        flags = ("--method", "lur-exact", "--set", "how.dropout=same", "--quiet")
        refused("dropout", "forget", place, "--random", 0.1, *flags)

    def test_an_attention_kernel_without_second_derivative(self, refused, tmp_path):
        place = projects.project(tmp_path / "p", FLASH)
        refused("use mode 'nested'", "forget", place, "--random", 0.1, "--method", "lur-exact", "--quiet")

    def test_lagged_beyond_its_bound(self, refused, tmp_path):
        place = projects.project(tmp_path / "p", projects.TRAINED)
        flags = ("--set", "lur.mode=lagged", "--set", "lur.alpha=1e6", "--quiet")
        refused("mode 'lagged' converges below", "forget", place, "--random", 0.1, *flags)


OTHER_TASKS = """
class Flat(Net):
    def forward(self, x, scale):
        return super().forward(x, scale)[:, 0]


class Tokens(Net):
    def forward(self, x, scale):
        return super().forward(x, scale)[:, None].expand(-1, 5, -1)


class Labelled(Records):
    def __init__(self, label):
        super().__init__(90, 0)
        self.label = label

    def __getitem__(self, i):
        return {**super().__getitem__(i), "label": self.label}
"""

FLASH = """
class Kernel(Net):
    def forward(self, x, scale):
        hidden = self.first(x * scale)[:, None, None]
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return self.last(attend(hidden, hidden, hidden)[0][:, 0, 0])


def load():
    return given(model=Kernel())
"""
