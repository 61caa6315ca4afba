"""batch: files of prompts in three formats, alike jobs together, what is done skipped, one failure alone, shares."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ldm import batch, metadata

LINES = [
    {"prompt": "a red apple"},
    {"prompt": "three green pears", "seed": 7, "num_inference_steps": 3, "negative_prompt": "blue", "name": "pears"},
    {"prompt": "a cat face", "seed": 2, "count": 2, "width": 40, "height": 32},
]
FORMS = {
    "a.txt": 'a red apple\n\n# a remark\nthree green pears --seed 7 --steps=3 --negative "blue" --name pears\n'
    "a cat face --seed 2 --count 2 --size 40x32\n",
    "a.jsonl": "\n".join(map(json.dumps, LINES)),
    "a.csv": "prompt,seed,steps,negative,name,n,size\na red apple,,,,,,\nthree green pears,7,3,blue,pears,,\n"
    "a cat face,2,,,,2,40x32\n",
}


def read(tmp_path, name, text, **common):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return batch.read(tmp_path / name, tmp_path / "out", common)


@pytest.mark.parametrize("name", FORMS)
def test_three_formats_say_the_same(tmp_path, name):
    jobs = read(tmp_path, name, FORMS[name], num_inference_steps=2, seed=5)
    told = [(job.path.name[5:], job.prompt, job.seed, job.negative_prompt, dict(job.alike)) for job in jobs]
    assert [row[1:] for row in told] == [
        ("a red apple", 5, "", {"num_inference_steps": 2}),
        ("three green pears", 7, "blue", {"num_inference_steps": 3}),
        ("a cat face", 2, "", {"num_inference_steps": 2, "width": 40, "height": 32}),
        ("a cat face", 3, "", {"num_inference_steps": 2, "width": 40, "height": 32}),
    ]
    assert jobs[1].path.name == "pears.png"
    assert [job.path.name.split("-", 1)[1] for job in (jobs[0], *jobs[2:])] == [
        "a-red-apple-5.png", "a-cat-face-2.png", "a-cat-face-3.png"
    ]  # fmt: skip


def test_a_value_may_hold_an_equals_sign(tmp_path):
    [job] = read(tmp_path, "a.txt", 'a --negative "b=c" --steps=3')
    assert job.negative_prompt == "b=c" and job.alike == {"num_inference_steps": 3}


@pytest.mark.parametrize("prompt", ["a -- b", "x--y", "5 - 3", 'say "hi', "a --seed 3"])
def test_a_prompt_of_a_text_file_may_hold_nearly_anything(tmp_path, prompt):
    [job] = read(tmp_path, "a.txt", prompt)
    assert (job.prompt, job.seed) == (("a", 3) if prompt == "a --seed 3" else (prompt, 0))


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.txt", "a\nb --sead 3", "line 2: 'sead'"),
        ("a.txt", "a --seed", "line 1: seed has no value"),
        ("a.txt", "a --seed x", "line 1: seed 'x'"),
        ("a.txt", "a --steps 2.5", "line 1: steps '2.5'"),
        ("a.txt", "a --count 0", "line 1: count 0"),
        ("a.txt", "a --strength 0.5", "line 1: strength goes with an image"),
        ("a.jsonl", '{"seed": 1e999}', "line 1: seed inf"),
        ("a.txt", "a --size axb", "line 1"),
        ("a.txt", "a --name ../b", "line 1: name '../b'"),
        ("a.txt", "a --name x\nb --name x", "called x.png"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt"', "line 2: no JSON"),
        ("a.jsonl", "[1]", "line 1: expected a JSON object"),
        ("a.jsonl", '{"seed": true}', "line 1: seed True"),
        ("a.csv", "prompt,seed\na,1,2", "line 2: expected 2 columns"),
        ("a.csv", "prompt,colour\na,red", "line 2: 'colour'"),
        ("a.yaml", "a", "expected a file of prompts"),
        ("a.txt", "a --count 1000000000", "line 1: count 1000000000: expected 1 to 100,000"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("a.csv", f"prompt\n{'a' * 200_000}", "line 2: no CSV: field larger than field limit"),
        ("a.csv", "prompt,seed\n\na", "line 3: expected 2 columns"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")) as error:
        read(tmp_path, name, text)
    assert "\n" not in str(error.value)


def test_alike_jobs_are_drawn_together(tmp_path):
    jobs = read(
        tmp_path, "a.jsonl", "\n".join(json.dumps({"prompt": "x", "width": 32 + 8 * (i % 2)}) for i in range(40))
    )
    groups = batch.batches(jobs)
    assert [len(group) for group in groups] == [16, 4, 16, 4]
    assert all(len({job.key for job in group}) == 1 for group in groups)


def test_shares_are_all_there_is_and_none_twice(tmp_path, monkeypatch):
    jobs = read(tmp_path, "a.txt", "\n".join(f"prompt {i}" for i in range(7)))
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(batch.share(jobs))
    assert sorted(map(len, shares)) == [2, 2, 3]
    assert {job.path for share in shares for job in share} == {job.path for job in jobs}


def test_the_pictures_are_those_drawn_one_by_one(pipeline, tmp_path):
    jobs = read(tmp_path, "a.jsonl", FORMS["a.jsonl"], num_inference_steps=2)
    for job, image in batch.drawn(pipeline, jobs):
        told = {"seed": job.seed, "negative_prompt": job.negative_prompt, **job.alike}
        alone = pipeline.text_to_image(job.prompt, **told)[0]
        assert np.abs(np.asarray(alone, np.int16) - np.asarray(image, np.int16)).max() <= 1


def test_one_failure_does_not_stop_the_rest(pipeline, tmp_path):
    lines = [{"prompt": "x", "seed": seed} for seed in (1, -2, 3)] + [{"prompt": "x", "image": "nothing.png"}]
    jobs = read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)), num_inference_steps=2)
    results = [result for _, result in batch.drawn(pipeline, jobs)]
    assert [isinstance(result, Exception) for result in results] == [False, True, False, True]
    assert "-2" in str(results[1]) and "nothing.png" in str(results[3])


def test_a_line_may_edit_a_picture(pipeline, tmp_path):
    Image.new("RGB", (20, 24), "teal").save(tmp_path / "in.png")
    line = {"prompt": "x", "image": str(tmp_path / "in.png"), "strength": 0.5, "num_inference_steps": 4}
    [(_, image)] = batch.drawn(pipeline, read(tmp_path, "a.jsonl", json.dumps(line)))
    assert image.size == (20, 24) and image.info["ldm"]["executed_steps"] == 2


def test_what_is_done_is_what_was_asked_for(pipeline, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    [job] = read(tmp_path, "a.txt", "a red apple --steps 2 --seed 3")
    assert not job.done(pipeline)
    [(_, image)] = batch.drawn(pipeline, [job])
    metadata.save(image, job.path)
    assert job.done(pipeline)
    for more in ("--steps 4", "--steps 2 --clip_skip 0", "--steps 2 --negative blue", "--steps 2 --image a.png"):
        [other] = read(tmp_path, "a.txt", f"a red apple {more} --seed 3")
        assert other.path == job.path and not other.done(pipeline)
    monkeypatch.setattr(pipeline, "embeddings", {"word": "file"})
    assert not job.done(pipeline)
    monkeypatch.undo()
    monkeypatch.setattr(pipeline, "hash", "another")
    assert not job.done(pipeline)
    metadata.save(image, job.path, metadata=False)
    assert job.done(pipeline)
    job.path.write_bytes(job.path.read_bytes()[:100])
    assert not job.done(pipeline)


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ldm", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_the_command_from_end_to_end(folder, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a red apple --seed 1\na cat face --seed -3\nthree green pears\n")
    told = ("generate", "--prompts", prompts, "-o", out, "-m", folder, "--steps", 2)
    first = run(*told)
    assert first.returncode == 2 and "1 of 3 pictures failed" in first.stderr and "Traceback" not in first.stderr
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines if "error" not in line] == sorted(path.name for path in out.glob("*.png"))
    assert [line["prompt"] for line in lines if "error" in line] == ["a cat face"]
    prompts.write_text(prompts.read_text().replace("-3", "3"))
    again = run(*told)
    assert again.returncode == 0 and again.stdout.strip().endswith("a-cat-face-3.png")
    assert "2 of 3 pictures were there already" in again.stderr


def test_several_processes_draw_each_their_share_and_the_same_pictures(folder, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a red apple --seed {seed}" for seed in range(3)))
    told = ("generate", "--prompts", prompts, "-m", folder, "--steps", 2, "-o")
    assert run(*told, tmp_path / "alone").returncode == 0
    drawn = [run(*told, tmp_path / "shared", RANK=str(rank), WORLD_SIZE="2").stdout.split() for rank in range(2)]
    assert [len(paths) for paths in drawn] == [2, 1]
    for path in (tmp_path / "alone").glob("*.png"):
        pair = [np.asarray(Image.open(p), np.int16) for p in (path, tmp_path / "shared" / path.name)]
        assert np.abs(pair[0] - pair[1]).max() <= 1
    assert len((tmp_path / "shared" / "manifest.jsonl").read_text().splitlines()) == 3
