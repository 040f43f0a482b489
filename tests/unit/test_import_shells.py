"""Scripts are read as a shell reads them: wrappers, variables, arrays, defaults, branches; nothing is run."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.load import open_catalog
from planner.commands.deploy import _files_beside
from planner.errors import InputError
from planner.importing import Imported, import_text
from planner.importing.shell import read_script
from planner.importing.unknown import shown


def read(text: str, gpus: str = "8xH100") -> Imported:
    return import_text(text, gpus, open_catalog())


def words_of(text: str) -> list[list[str]]:
    return [[shown(word) for word in command.words] for command in read_script(text).commands]


@pytest.mark.parametrize(
    "text",
    [
        "env CUDA_VISIBLE_DEVICES=0,1 vllm serve org/m -tp 2 --max-model-len 4096",
        "exec nohup vllm serve org/m -tp 2 --max-model-len 4096 > log 2>&1 &",
        "srun --ntasks=1 --gpus-per-task=2 vllm serve org/m -tp 2 --max-model-len 4096 | tee out.log",
        "uv run --with vllm vllm serve org/m -tp 2 --max-model-len 4096",
        "conda run -n serving --no-capture-output vllm serve org/m -tp 2 --max-model-len 4096",
        "torchrun --nproc-per-node 1 -m vllm.entrypoints.openai.api_server --model org/m -tp 2 --max-model-len 4096",
        "/opt/venv/bin/python3 -u -m vllm.entrypoints.openai.api_server --model=org/m -tp 2 --max-model-len=4096",
        "ssh node1 'vllm serve org/m -tp 2 --max-model-len 4096'",
        "tmux new-session -d -s s 'vllm serve org/m -tp 2 --max-model-len 4096'",
        'sbatch --gres=gpu:2 --wrap="vllm serve org/m -tp 2 --max-model-len 4096"',
        "bash -lc 'exec vllm serve \"$@\"' start org/m -tp 2 --max-model-len 4096",
        "docker run --rm -it --gpus all -e A=b vllm/vllm-openai:v0.33.0 --model org/m -tp 2 --max-model-len 4096",
        "sudo docker run -d --entrypoint vllm image.of/mine serve org/m -tp 2 --max-model-len 4096",
        "apptainer exec --nv vllm.sif vllm serve org/m -tp 2 --max-model-len 4096",
        'M=org/m\nARGS=(-tp 2)\nARGS+=(--max-model-len 4096)\nvllm serve $M "${ARGS[@]}"',
        "export N=2 L=$((4 * 1024))\nvllm serve ${M:-org/m} -tp $N --max-model-len=${L}",
        "ARGS='-tp 2 --max-model-len 4096'\nvllm serve org/m $ARGS",
        'serve() { vllm serve "$1" -tp "$2" --max-model-len 4096; }\nserve org/m 2',
        "bash <<'EOF'\nvllm serve org/m -tp 2 --max-model-len 4096\nEOF",
        "cat > go.sh <<EOF\nvllm serve org/m -tp 2 --max-model-len 4096\nEOF\nbash go.sh",
        'T=2\nif [ -n "$T" ]; then P="-tp $T"; else P=\'\'; fi\nvllm serve org/m $P --max-model-len 4096',
        "case a in a) T=2 ;; *) T=8 ;; esac\nvllm serve org/m -tp $T --max-model-len 4096",
    ],
)
def test_what_stands_around_a_server_is_seen_through(text: str) -> None:
    found = read(text)
    assert (found.model, found.decision.parallel.tp, found.context_tokens) == ("org/m", 2, 4096)
    assert not found.unpriced


def test_words_are_split_and_joined_as_a_shell_does() -> None:
    assert words_of('A="x y"; echo $A "$A" a"$A"b \'$A\' ${A}z') == [
        ["echo", "x", "y", "x y", "ax yb", "$A", "x", "yz"],
    ]
    assert words_of("A=(one 'two words' 3)\necho \"${A[@]}\" ${#A[@]} ${A[1]}") == [
        ["echo", "one", "two words", "3", "3", "two", "words"],
    ]
    assert words_of("for i in {0..1} $(seq 5 6); do echo $i; done") == [["echo", str(i)] for i in (0, 1, 5, 6)]


def test_json_in_quotes_over_several_lines_is_one_value() -> None:
    found = read('vllm serve org/m -tp 4 --speculative-config \'{\n  "method": "eagle"\n}\' --max-model-len 2K')
    assert (found.decision.parallel.tp, found.context_tokens) == (4, 2048)
    assert any("speculative decoding isn't priced" in note for note in found.notes)


def test_what_the_file_does_not_say_is_told_and_not_priced() -> None:
    found = read("vllm serve $MODEL -tp $TP --port $PORT")
    assert found.model is None
    assert "parallel.tp" in found.undetermined
    assert any("--tensor-parallel-size" in reason for reason in found.unpriced)
    assert not any("--port" in reason for reason in found.unpriced)
    found = read("vllm serve org/m -tp 2 $EXTRA_ARGS")
    assert found.model == "org/m"
    assert found.unpriced == ("$EXTRA_ARGS may hold any flag",)
    assert read("vllm serve <your model> -tp 2").model is None


def test_branches_that_disagree_leave_a_value_open() -> None:
    text = 'if [ "$GPU" = H100 ]; then TP=4; else TP=8; fi\nvllm serve org/m -tp $TP'
    assert read(text).unpriced == ("--tensor-parallel-size has a value that isn't in the file",)
    same = 'if [ "$GPU" = H100 ]; then TP=4; X=1; else TP=4; fi\nvllm serve org/m -tp $TP'
    assert read(same).decision.parallel.tp == 4


def test_a_server_in_either_branch_is_read_once() -> None:
    text = 'if [ "$X" = 1 ]; then vllm serve org/m -tp 4; else vllm serve org/m -tp 8; fi'
    found = read(text)
    assert (found.decision.parallel.tp, found.decision.parallel.replicas) == (4, 1)
    assert any("otherwise in another case" in note for note in found.notes)


def test_a_loop_starts_as_many_servers_as_it_turns() -> None:
    text = "for i in 0 1 2; do CUDA_VISIBLE_DEVICES=$i vllm serve org/m --port $((8000 + i)) & done; wait"
    assert read(text).decision.parallel.replicas == 3


def test_defaults_are_taken_and_told() -> None:
    found = read("vllm serve org/m -tp ${TP:-2} ${EAGER:+--enforce-eager}")
    assert found.decision.parallel.tp == 2
    assert "--enforce-eager" not in found.flags
    assert any("TP isn't set in the file: its default 2" in note for note in found.notes)


def test_manifests_inside_a_script_are_read() -> None:
    text = """
    kubectl apply -f - <<EOF
    apiVersion: v1
    kind: Pod
    metadata: {name: p}
    spec:
      containers:
      - {name: c, image: "vllm/vllm-openai:v0.33.0", args: [--model, org/m, -tp, "2"]}
    EOF
    """
    assert read(dedent(text)).decision.parallel.tp == 2


def test_words_that_only_talk_start_nothing() -> None:
    for text in ("echo vllm serve org/m", "pkill -f 'vllm serve'", "pip install vllm", "# vllm serve org/m"):
        with pytest.raises(InputError, match="no server"):
            read(text)


def test_a_unit_starts_what_its_exec_start_says() -> None:
    unit = """
    [Unit]
    Description=vllm
    [Service]
    Environment="TP=2" MODEL=org/m
    EnvironmentFile=-/etc/default/vllm
    ExecStart=/usr/bin/env vllm serve ${MODEL} \\
        -tp ${TP} --max-model-len ${LENGTH}
    """
    text = "\n".join(line.strip() for line in unit.splitlines())
    found = read(text)
    assert (found.model, found.decision.parallel.tp, found.context_tokens) == ("org/m", 2, None)
    assert any("/etc/default/vllm isn't beside the unit" in note for note in found.notes)
    beside = import_text(text, "8xH100", open_catalog(), neighbour=lambda path: "LENGTH=4096\n")
    assert beside.context_tokens == 4096
    assert not beside.unpriced


def test_flags_are_found_by_a_unique_beginning_as_argparse_does() -> None:
    found = read(
        "vllm serve org/m --tensor-parallel 8 --max-num-seq 64 -O3 -cc.mode=3 --speculative-config.method eagle"
    )
    assert found.decision.parallel.tp == 8
    assert found.flags["--max-num-seqs"] == 64
    assert found.flags["--optimization-level"] == "3"
    assert found.flags["--compilation-config"] == '{"mode": 3}'
    assert any("could be" in note for note in read("vllm serve org/m --max-num 4").notes)


def test_a_server_hands_over_by_its_kv_role() -> None:
    transfer = """--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_%s"}' &"""
    text = f"vllm serve org/m {transfer % 'producer'}\nvllm serve org/m -tp 2 {transfer % 'consumer'}"
    pools = read(text).decision.pools
    assert pools is not None
    assert (pools.prefill.parallel.tp, pools.decode.parallel.tp) == (1, 2)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("org/M-AWQ", "awq4"),
        ("org/M-GPTQ-Int4", "gptq4"),
        ("org/M-GPTQ-Int8", "gptq8"),
        ("org/M-int4-AutoRound", "gptq4"),
        ("org/M-quantized.w8a8", "int8_w8a8"),
        ("org/M-FP8-dynamic", "fp8"),
        ("org/M-bnb-4bit", "nf4"),
        ("org/M", "bf16"),
        ("org/M-NVFP4", None),
        ("org/M-mxfp4", None),
        ("org/M-W4A8", None),
    ],
)
def test_every_precision_in_a_name_is_read_or_told(name: str, weights: str | None) -> None:
    found = read(f"vllm serve {name} -tp 2")
    if weights is None:
        assert "weights" in found.undetermined
        assert any("by the checkpoint's name" in note for note in found.notes)
        assert any("precision" in reason for reason in found.unpriced)
    else:
        assert found.decision.weights == weights


@given(st.one_of(st.text(max_size=150), st.text(alphabet="${}()[]:-'\" \nab|<>EOF;=`é", max_size=150)))
@settings(max_examples=100, deadline=None)
def test_any_text_is_followed_or_refused(text: str) -> None:
    for script in (text, f"vllm serve {text}", f"A={text}\nvllm serve $A"):
        try:
            read_script(script)
        except InputError:
            continue


def test_what_would_take_forever_is_bounded() -> None:
    assert len(words_of("for i in {1..999999999}; do echo $i; done")) <= 256
    with pytest.raises(InputError):
        read("(" * 3000 + "vllm serve org/m" + ")" * 3000)


def test_values_and_words_as_published_recipes_have_them() -> None:
    found = read("vllm serve org/m --max-model-len auto -dp 8 --enable-expert-parallel ...")
    assert found.context_tokens is None
    assert not any("--max-model-len" in note for note in found.notes)
    assert found.unpriced == ("... may hold any flag",)
    assert any("stands beside the model" in note for note in read("vllm serve org/m other").notes)
    assert read("vllm serve $model_name -tp 8").model is None
    for path in ("~0", "~nobody/m", "/" + "m" * 5000):
        assert read(f"vllm serve {path}").model == path


def test_files_beside_the_one_that_is_read_are_found_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("max-num-seqs: 17\n")
    beside = _files_beside(str(tmp_path / "run.sh"))
    text = "vllm serve org/m --config /srv/serve.yaml"
    assert import_text(text, "8xH100", open_catalog(), neighbour=beside).decision.batch.decode_sequences == 16
    assert beside("../secret") is None
    assert _files_beside("-")("serve.yaml") is None
