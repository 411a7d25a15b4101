"""Audits of generators of images: of classes (`exam`, `latent_exam`), and of concepts (`concept_exam`).

An exam: `images_exam` is what both share; `drawing`, `latent_drawing` and `draws` draw from a model;
`class_images`, `real_images`, `concept_prompts` and `prompt_file` hold real images and prompts; `verdict` and
`concept_verdict` judge.

Its figures: `recogniser` and `factor_recogniser` classify images; `samples` and `concept_samples` hold what
they see; `recognition`, `kid`, `manifold`, `drift` and `description` compute; `metrics` and `concept_metrics`
list.

Its attacks: `attacker` has the budget; `attacks` and `concept_attacks` run, by `sweeps`, `conditioning`,
`relearning`, `text_attacks`, `clip_encoder` and `old_words`; `attack_metrics` and `concept_attack_metrics`
say what each shows; `image_attacks` lists their names.

Models from local files: `local_models`, with `local_classifier`, `nude_net`, `clip_folder`, `clip_score` and
`fid`.
"""
