"""What is to be forgotten, said in every way that is understood."""

import json
import runpy
from pathlib import Path

import pytest

import projects

SHORT = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")


@pytest.fixture
def forget_ids(run, here):
    """Forgets, and returns what the run says it was asked to forget."""

    def check(model: object, *request: object) -> list:
        result = run("forget", model, *request, *SHORT, "--json")
        assert result.code == 0, result
        place = here / json.loads(result.out)["out"]
        split = json.loads((place / "split.json").read_text())
        forget = json.loads((place / "forget.json").read_text())["forget"]
        assert split["forget"] == [int(str(name).rpartition("/")[2]) for name in forget]
        assert json.loads(result.out)["forgotten"] == len(forget)
        return forget

    return check


class TestIds:
    @pytest.mark.parametrize("ids", ["r0/3,r0/8,r0/51", " r0/3, r0/8 ,r0/51,", "r0/51,r0/3,r0/8"])
    def test_with_commas_between(self, forget_ids, project, ids):
        assert forget_ids(project, "--ids", ids) == ["r0/3", "r0/8", "r0/51"]

    @pytest.mark.parametrize(
        "content",
        [
            "r0/3\nr0/8\nr0/51",
            "id\nr0/3\nr0/8\nr0/51\n",
            "r0/51\r\n\r\n  r0/8  \r\nr0/3\r\n",
            "id,asked on\nr0/3,2024-02-01\nr0/8,2024-02-02\nr0/51,2024-02-03\n",
            '\ufeffid,why\r\n"r0/3","moved, and asked"\r\nr0/8,\r\n"r0/51",\r\n',
        ],
        ids=["one a line", "under a heading", "in any order", "the first column", "a spreadsheet's"],
    )
    def test_in_a_file(self, forget_ids, project, here, content):
        (here / "request.csv").write_text(content, newline="", encoding="utf-8")
        assert forget_ids(project, "--ids", "request.csv") == ["r0/3", "r0/8", "r0/51"]

    def test_names_beside_the_data(self, forget_ids, tmp_path):
        change = projects.loads("given(ids=[f'name/{i}' for i in range(90)])")
        ids = forget_ids(projects.project(tmp_path / "mine", change), "--ids", "name/8,name/3")
        assert ids == ["name/3", "name/8"]

    def test_an_id_that_is_also_a_file_is_an_id(self, forget_ids, project, here):
        (here / "r0").mkdir()
        (here / "r0" / "3").write_text("r0/8\n")
        assert forget_ids(project, "--ids", "r0/3") == ["r0/3"]


class TestPositions:
    """Data without ids."""

    @pytest.mark.parametrize("ids", ["3,8,51", "51, 3, 8"])
    def test_with_commas_between(self, forget_ids, tmp_path, ids):
        assert forget_ids(projects.recipe(tmp_path), "--ids", ids) == [3, 8, 51]

    @pytest.mark.parametrize("content", ["3\n8\n51\n", "id,why\n51,a\n8,b\n3,c\n"])
    def test_in_a_file(self, forget_ids, tmp_path, here, content):
        (here / "request.txt").write_text(content)
        assert forget_ids(projects.recipe(tmp_path), "--ids", "request.txt") == [3, 8, 51]

    def test_a_recipe_has_its_own_which_a_request_replaces(self, forget_ids, tmp_path):
        recipe = projects.recipe(tmp_path)
        assert len(forget_ids(recipe)) == 20 and forget_ids(recipe, "--ids", "7") == [7]


class TestParts:
    def test_a_class_is_every_example_with_its_label(self, forget_ids, project):
        labels = runpy.run_path(project)["Records"](90, 0).labels.tolist()
        expected = [f"r0/{i}" for i, label in enumerate(labels) if label == 1]
        assert forget_ids(project, "--class", 1) == expected
        split = json.loads(Path("forgotten/split.json").read_text())
        assert split.keys() == {"digest", "forget", "calibration"}
        assert split["forget"] == [i for i, label in enumerate(labels) if label == 1]

    def test_a_random_part_is_drawn_by_the_seed(self, forget_ids, project):
        first, second, other = (forget_ids(project, "--random", 0.2, "--seed", seed) for seed in (1, 1, 2))
        assert first == second != other and len(first) == len(other) == 18

    def test_a_request_in_ids_gives_the_model_that_the_same_class_gave(self, forget_ids, tmp_path):
        place = projects.project(tmp_path / "mine", projects.TRAINED)
        ids = forget_ids(place, "--class", 2)
        forget_ids(place, "--ids", ",".join(ids), "--out", "same")
        forget_ids(place, "--ids", ",".join(ids[1:]), "--out", "other")
        places = ("forgotten", "same", "other")
        model, same_model, other_model = (Path(each, "model.safetensors").read_bytes() for each in places)
        assert model == same_model != other_model
