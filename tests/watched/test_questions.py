"""Questions over a watch equal what eager attention's matrices say."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from tests import tiny_models  # noqa: E402


@pytest.fixture(scope="module")
def watched():
    """A watch of a text that repeats, and eager attention's matrices (layers, heads, n, n)."""
    model = tiny_models.model_of("llama", "sdpa", layers=3)
    torch.manual_seed(2)
    half = torch.randint(3, 97, (1, 12))
    ids = torch.cat([half, half], 1)
    with torch.no_grad():
        with clearhead.watch(model) as seen:
            model(ids)
        model.set_attn_implementation("eager")
        eager = torch.cat(model(ids, output_attentions=True).attentions).double().numpy()
    return seen, eager, ids[0].numpy()


def ranked(values):
    """Heads by falling value."""
    order = np.argsort(-values.ravel(), kind="stable")
    return [(*map(int, np.unravel_index(n, values.shape)), values.ravel()[n]) for n in order]


def test_induction_heads_are_found(watched):
    seen, eager, ids = watched
    follows = (ids[:, None] == np.roll(ids, 1)) & (np.arange(24) > 0)
    expected = ranked((eager * np.tril(follows)).sum(-1).mean(-1))
    found = seen.find("induction", most=5)
    assert [head[:2] for head in found] == [head[:2] for head in expected[:5]]
    np.testing.assert_allclose([head.value for head in found], [head[2] for head in expected[:5]], atol=1e-6)


def test_heads_that_look_at_a_needle_are_found(watched):
    seen, eager, _ = watched
    expected = ranked(eager[..., -1, [3, 4]].sum(-1))
    found = seen.find("needle", groups={"rest": [0], "needle": [3, 4]}, how="last", most=3)
    assert [head[:2] for head in found] == [head[:2] for head in expected[:3]]
    assert found[0].value == pytest.approx(expected[0][2], abs=1e-6)


def test_any_summary_ranks_heads(watched):
    seen, eager, _ = watched
    expected = ranked(-eager[..., 0].mean(-1))
    found = seen.find("first", smallest=True, most=2)
    assert [head[:2] for head in found] == [head[:2] for head in expected[:2]]


def test_a_summary_knows_groups_matches_and_tokens(watched):
    seen, eager, ids = watched
    summary = seen.summary("entropy", "groups", "induction", groups={"start": [0, 1], "end": slice(20, None)})
    assert summary.entropy.shape == (3, 4, 24)
    assert (summary.group_names, summary.match_names) == (("start", "end"), ("induction",))
    np.testing.assert_allclose(summary.groups[..., 0], eager[..., :2].sum(-1), atol=1e-6)
    shared = summary.over_heads(key_heads=2)
    assert shared.groups.shape == (3, 2, 24, 2)
    np.testing.assert_allclose(shared.groups[:, 1, :, 1], eager[:, 2:, :, 20:].sum(-1).mean(1), atol=1e-6)
    assert seen.token_ids().tolist() == ids.tolist()


def test_layers_roll_out_from_a_watch(watched):
    seen, eager, _ = watched
    total = np.eye(24)
    for layer in eager:
        total = (0.5 * layer.mean(0) + 0.5 * np.eye(24)) @ total
    np.testing.assert_allclose(clearhead.rollout(seen, [-1]), total[[-1]], atol=1e-6)


@pytest.mark.parametrize("question", ["needle", "nothing", "top"])
def test_unknown_questions_are_told(watched, question):
    with pytest.raises(InputError, match=question):
        watched[0].find(question)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda seen: seen.find("groups", groups=5), "groups=5 must name some groups"),
        (lambda seen: seen.summary("previous", matches=5), "matches=5 must name some pairs"),
        (lambda seen: seen.layer("0"), "layer '0' was not watched: choose from"),
        (lambda seen: seen.layer(0, run="0"), "run '0' was not recorded"),
        (lambda seen: seen.layer(0, sequence="0"), "sequence '0' was not in the batch"),
        (lambda seen: clearhead.heaviest_keys(5, -1), "5 has no layers: give a watch, or a list of weights"),
    ],
)
def test_wrong_arguments_of_questions_are_told(watched, ask, message):
    with pytest.raises(InputError, match=message):
        ask(watched[0])


@torch.no_grad()
def test_a_watch_inside_an_intervention_shows_the_edited_weights():
    model = tiny_models.model_of("llama", "sdpa", layers=2)
    ids = torch.randint(3, 97, (1, 15), generator=torch.Generator().manual_seed(3))
    with clearhead.watch(model) as plain:
        model(ids)
    with clearhead.intervene(model) as change:
        change.cut(1, [2], keys=[0, 1], queries=slice(5, None))
        change.scale(1, [0], 0.5, keys=[3])
        change.ablate(1, [3])
        with clearhead.watch(model) as seen:
            model(ids)
    before, after = (np.asarray(watched.layer(1).weights).astype(np.float64) for watched in (plain, seen))
    expected = before.copy()
    expected[0, :, 3] *= 0.5
    expected[2, 5:, :2] = 0
    expected[2, 5:] /= expected[2, 5:].sum(-1, keepdims=True)
    np.testing.assert_allclose(after, expected, atol=1e-6)
    assert len(seen.layer(1).changes) == 3
    assert not seen.layer(0).changes


def test_a_run_prints_without_its_arrays(watched):
    seen, _, _ = watched
    assert repr(seen.runs[0]) == f"Run(layers={{decoder: 3}}, nbytes={seen.nbytes})"


def test_layers_and_heads_print_in_a_line(watched):
    seen = watched[0]
    assert repr(seen.layer(1)) == "Layer(part='decoder', number=1, heads=4, queries=24, keys=24)"
    assert repr(seen.layer(1).head(3)) == "Head(part='decoder', layer=1, number=3, queries=24, keys=24)"


def test_a_watch_is_compared_as_its_layers_are(watched):
    seen, eager, _ = watched
    got = clearhead.similarity(seen)
    flat = eager.reshape(12, -1) / np.linalg.norm(eager.reshape(12, -1), axis=1)[:, None]
    np.testing.assert_allclose(got.reshape(12, 12), flat @ flat.T, atol=1e-6)


def test_unknown_questions_list_those_of_tokens_too(watched):
    with pytest.raises(InputError, match="matches, previous, duplicate, induction"):
        watched[0].summary("entropi")


@pytest.mark.parametrize("one", [lambda layer: layer, lambda layer: layer.head(0), lambda layer: layer.weights])
def test_one_layer_is_not_taken_for_several(watched, one):
    with pytest.raises(InputError, match="of one layer"):
        clearhead.heaviest_keys(one(watched[0].layer(1)), -1)


def test_a_watch_is_not_taken_for_a_layer(watched):
    from clearhead import plot

    with pytest.raises(InputError, match=r"seen\.layer\(0\)"):
        plot.heads(watched[0])


@torch.no_grad()
def test_tokens_of_two_texts_are_not_compared():
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    ids = torch.arange(3, 12)[None]
    for answer in (ids, ids[:, :4]):
        with clearhead.watch(model) as seen:
            model(input_ids=ids, decoder_input_ids=answer)
        assert seen.find("duplicate", part="decoder", most=1)
        for question in ("previous", "duplicate", "induction"):
            with pytest.raises(InputError, match="9 keys of cross are not its"):
                seen.find(question, part="cross")


@torch.no_grad()
def test_keys_of_before_a_watch_have_no_tokens():
    model = tiny_models.model_of("llama", "sdpa", layers=1)
    ids = torch.arange(3, 15)[None]
    cache = model(ids[:, :8], use_cache=True).past_key_values
    with clearhead.watch(model) as seen:
        model(ids[:, 8:], past_key_values=cache)
    with pytest.raises(InputError, match="12 keys of decoder are not its 4 queries"):
        seen.find("previous")


@torch.no_grad()
def test_what_has_no_tokens_is_not_sent_to_their_numbers():
    model = tiny_models.model_of("llama", "sdpa", layers=1)
    with clearhead.watch(model) as seen:
        model(inputs_embeds=torch.zeros(1, 3, 64))
    with pytest.raises(InputError, match="were not seen"):
        seen.tokens()


@torch.no_grad()
def test_values_of_another_run_are_not_shown_as_this_runs():
    model = tiny_models.model_of("llama", "sdpa", layers=2)
    first, other = torch.randint(3, 97, (2, 1, 9), generator=torch.Generator().manual_seed(5))
    with clearhead.watch(model) as seen:
        model(first)
    with clearhead.intervene(model) as change:
        change.patch(1, [0], seen, values=True)
        with clearhead.watch(model) as changed:
            model(other)
    assert changed.layer(0).values.shape == (4, 9, 16)
    assert changed.layer(1).weights.shape == (4, 9, 9)
    with pytest.raises(InputError, match=r"layer 1 of decoder, patch.* put another run's values"):
        _ = changed.layer(1).values
