"""Each model's scores and loss against its formula, written out in numpy loops."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse as sp

from mmalign.errors import DataError
from mmalign.models.neural.aldi import ALDI, ALDIConfig
from mmalign.models.neural.alpharec import AlphaRec, AlphaRecConfig
from mmalign.models.neural.base import Triplets
from mmalign.models.neural.bm3 import BM3, BM3Config
from mmalign.models.neural.clcrec import CLCRec, CLCRecConfig
from mmalign.models.neural.dropoutnet import DropoutNet, DropoutNetConfig
from mmalign.models.neural.freedom import Freedom, FreedomConfig
from mmalign.models.neural.gar import GAR, GARConfig
from mmalign.models.neural.graphs import item_graphs
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig
from mmalign.models.neural.mgcn import MGCN, MGCNConfig
from mmalign.models.neural.pgl import PGL, PGLConfig
from mmalign.models.neural.vbpr import VBPR, VBPRConfig

_spec = importlib.util.spec_from_file_location("oracles", Path(__file__).parent / "conftest.py")
_oracles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_oracles)
gradients, rounds = _oracles.gradients, _oracles.rounds

WARM = 10


def array(tensor):
    return tensor.detach().double().numpy()


def softplus(x):
    return np.logaddexp(0, x)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def triples(batch):
    parts = batch.users, batch.positives, batch.negatives
    return zip(*(x.tolist() for x in parts), strict=True)


def bpr(users, items, batch):
    gaps = [
        users[u] @ items[j] - users[u] @ items[i] for u, i, near in triples(batch) for j in near
    ]
    return softplus(np.array(gaps)).mean()


def softmax(users, items, batch, temperature):
    losses = []
    for u, i, near in triples(batch):
        scores = np.array([users[u] @ items[j] / temperature for j in (i, *near)])
        losses.append(np.log(np.exp(scores).sum()) - scores[0])
    return np.mean(losses)


def info_nce(a, b, temperature):
    logits = unit(a) @ unit(b).T / temperature
    rows = np.log(np.exp(logits).sum(axis=1))
    columns = np.log(np.exp(logits).sum(axis=0))
    return np.mean((rows + columns) / 2 - np.diag(logits))


def fitted(model, shop):
    torch.manual_seed(0)
    model.fit(shop)
    for parameter in model.network.parameters():  # away from zeros and identities
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_lightgcn(shop, batch):
    config = LightGCNConfig(embedding_dim=4, num_layers=2, regularization=0.5)
    model = fitted(LightGCN(config), shop)
    start = array(model.network.users), array(model.network.items)
    users, items = rounds(shop.matrix[:, :WARM], *start, 2)
    losses = model.loss(batch)
    assert losses["bpr"].item() == pytest.approx(bpr(users, items, batch), rel=1e-5)
    squares = sum(
        np.square(x).sum()
        for u, i, (j,) in triples(batch)
        for x in (start[0][u], start[1][i], start[1][j])
    )
    assert losses["l2"].item() == pytest.approx(0.5 * squares / 2 / 4, rel=1e-5)


def test_vbpr(shop, batch):
    config = VBPRConfig(embedding_dim=3, content_dim=2, regularization=0.3)
    model = fitted(VBPR(config), shop)
    net = model.network
    x = array(model.concatenated)

    def score(user, item):
        content = array(net.project.weight) @ x[item]
        return (
            array(net.bias)[item, 0]
            + array(net.ids.users)[user] @ array(net.ids.items)[item]
            + array(net.tastes)[user] @ content
            + array(net.content_bias.weight)[0] @ x[item]
        )

    expected = np.mean(
        [softplus(score(u, j) - score(u, i)) for u, i, near in triples(batch) for j in near]
    )
    losses = model.loss(batch)
    assert losses["bpr"].item() == pytest.approx(expected, rel=1e-5)
    users, items = (array(x) for x in model.embed())
    assert users[4] @ items[6] == pytest.approx(score(4, 6), rel=1e-5)
    squares = sum(  # the one at a user's end, which a bias is multiplied by, is no factor
        np.square(x).sum()
        for u, i, (j,) in triples(batch)
        for x in (users[u, :-1], items[i], items[j])
    )
    assert losses["l2"].item() == pytest.approx(0.3 * squares / 2 / 4, rel=1e-5)


def test_a_cold_item_of_vbpr_is_its_content_alone(shop):
    model = fitted(VBPR(VBPRConfig(embedding_dim=3, content_dim=2)), shop)
    model.freeze(shop)
    features = {name: feature.rows(np.array([2])) for name, feature in shop.features.items()}
    with torch.no_grad():
        model.network.bias.zero_()
        model.network.ids.items.zero_()
        _, items = model.embed()
    np.testing.assert_allclose(model.place(features)[0], items[2].numpy(), rtol=1e-5, atol=1e-7)


def test_alpharec(shop, wide):
    config = AlphaRecConfig(embedding_dim=4, hidden_dim=5, num_layers=2, temperature=0.3)
    model = fitted(AlphaRec(config), shop)
    matrix, x = shop.matrix[:, :WARM].toarray(), model.concatenated
    mean = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    content = torch.tensor(mean @ x.numpy(), dtype=torch.float32)
    start = [array(model.network.project(each)) for each in (content, x)]
    users, items = (unit(rows) for rows in rounds(matrix, *start, 2))
    loss = model.loss(wide)["softmax"].item()
    assert loss == pytest.approx(softmax(users, items, wide, 0.3), rel=1e-4)


def test_alpharec_reads_a_train_user_from_the_history_as_in_training(shop):
    model = fitted(AlphaRec(AlphaRecConfig(embedding_dim=4)), shop)
    model.freeze(shop)
    users, _ = model.embed()
    np.testing.assert_allclose(
        model.user_vectors(shop.matrix), users.detach().numpy(), rtol=1e-4, atol=1e-6
    )


def test_alpharec_reads_a_cold_item_in_the_first_round_alone(shop):
    model = fitted(AlphaRec(AlphaRecConfig(embedding_dim=4, num_layers=2)), shop).freeze(shop)
    cold = {name: feature.rows(np.arange(WARM, 14)) for name, feature in shop.features.items()}
    own = array(model.network.project(model.content.concatenated(cold)))
    np.testing.assert_allclose(model.states[0, WARM:], own, rtol=1e-5, atol=1e-6)
    assert not model.states[1, WARM:].any()
    model.add_items(cold, 4)
    np.testing.assert_array_equal(model.states[:, 14:], model.states[:, WARM:14])


def test_alpharec_reads_light_interactions_as_in_training(shop):
    light = replace(shop, matrix=shop.matrix * np.float32(0.02))
    test_alpharec_reads_a_train_user_from_the_history_as_in_training(light)


def test_dropoutnet(shop, wide):
    model = fitted(DropoutNet(DropoutNetConfig(embedding_dim=4, hidden_dim=5, dropout=0.0)), shop)
    users, items = (array(each) for each in model.embed())
    u, v = array(model.network.users), array(model.network.items)
    errors = [
        (users[a] @ items[i] - u[a] @ v[i]) ** 2 for a, taken, _ in triples(wide) for i in [taken]
    ]
    others = [
        (users[a] @ items[j] - u[a] @ v[j]) ** 2 for a, _, near in triples(wide) for j in near
    ]
    expected = (np.mean(errors) + np.mean(others)) / 2
    assert model.loss(wide)["squared"].item() == pytest.approx(expected, rel=1e-4)


def test_the_factors_start_from_the_seed_of_torch(shop):
    def factors(seed):
        torch.manual_seed(seed)
        return DropoutNet(DropoutNetConfig(embedding_dim=4)).fit(shop).factors.items

    np.testing.assert_array_equal(factors(1), factors(1))
    assert not np.allclose(factors(1), factors(2))


def test_dropoutnet_hides_the_collaborative_vectors_of_a_share_of_items(shop):
    model = fitted(DropoutNet(DropoutNetConfig(embedding_dim=4, dropout=1.0)), shop)
    seen = []
    tower = model.network.item_tower
    tower.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model.embed()
    torch.manual_seed(0)
    model.loss(_all_items(model))
    assert seen[0][:, :4].any()
    assert not seen[1][:, :4].any()
    torch.testing.assert_close(seen[0][:, 4:], seen[1][:, 4:])


def _all_items(model):
    count = torch.arange(WARM)
    return type("Batch", (), {"users": count, "positives": count, "negatives": count[:, None]})


@pytest.mark.parametrize("replaced", [0.0, 1.0])
def test_clcrec(shop, wide, replaced):
    config = CLCRecConfig(
        embedding_dim=4, temperature=0.7, contrast=0.3, replaced=replaced, regularization=0.2
    )
    model = fitted(CLCRec(config), shop)
    users, ids = array(model.network.ids.users), array(model.network.ids.items)
    content = array(model.network.encoder(model.network.content))
    own = type("Own", (), {**vars(wide), "users": wide.positives})
    losses = model.loss(wide)
    contrast = softmax(unit(ids), unit(content), own, 0.7)
    assert losses["contrast"].item() == pytest.approx(0.3 * contrast, rel=1e-4)
    mixed = content if replaced else ids
    assert losses["users"].item() == pytest.approx(0.7 * softmax(users, mixed, wide, 0.7), rel=1e-4)


def test_gar(shop, batch):
    model = fitted(GAR(GARConfig(embedding_dim=4, similarity=0.3, adversarial=0.2)), shop)
    net = model.network
    users, items = (array(each) for each in model.embed())
    generated = net.generator(net.content)
    fake, start = array(net.item_map(generated)), array(net.items)
    likeness, fooling, adversarial = [], [], []
    for u, i, _ in triples(batch):
        likeness.append(np.square(array(generated)[i] - start[i]).sum())
        fooling.append(softplus(users[u] @ items[i] - users[u] @ fake[i]))
        adversarial.append(softplus(users[u] @ fake[i] - users[u] @ items[i]))
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    assert losses == {
        "similarity": pytest.approx(0.3 * np.mean(likeness), rel=1e-4),
        "fooling": pytest.approx(0.7 * np.mean(fooling), rel=1e-4),
        "adversarial": pytest.approx(0.2 * np.mean(adversarial), rel=1e-4),
        "rank": pytest.approx(0.8 * bpr(users, items, batch), rel=1e-4),
    }


def test_the_two_of_gar_do_not_move_each_other(shop, batch):
    model = fitted(GAR(GARConfig(embedding_dim=4)), shop)
    losses = model.loss(batch)
    for name in ("similarity", "fooling"):
        moved = gradients(losses[name], model.network)
        assert moved
        assert all(parameter.startswith("generator.") for parameter in moved), name
    for name in ("adversarial", "rank"):
        moved = gradients(losses[name], model.network)
        assert moved
        assert not any(parameter.startswith("generator.") for parameter in moved), name


def test_aldi(shop, wide):
    model = fitted(ALDI(ALDIConfig(embedding_dim=4, rating=2, ranking=3, identity=5)), shop)
    net = model.network
    users, items = array(net.user_map(net.users)), array(net.item_map(net.content))
    u, v = array(net.users), array(net.items)

    def cross(student, teacher):
        odds = 1 / (1 + np.exp(-teacher))
        return odds * softplus(-student) + (1 - odds) * softplus(student)

    drawn = [j for _, _, near in triples(wide) for j in near]
    rating, ranking, identity = [], [], []
    for a, i, near in triples(wide):
        off = [abs(users[a] @ items[k] - u[a] @ v[k]) for k in (i, *near)]
        rating.append(off[0] + np.mean(off[1:]))
        for j in near:
            ranking.append(cross(users[a] @ (items[i] - items[j]), u[a] @ (v[i] - v[j])))
        standing = [z[i] @ z[i] - np.mean([z[i] @ z[j] for j in drawn]) for z in (items, v)]
        identity.append(cross(*standing))
    losses = {name: value.item() for name, value in model.loss(wide).items()}
    assert losses == {
        "bpr": pytest.approx(bpr(users, items, wide), rel=1e-4),
        "rating": pytest.approx(2 * np.mean(rating), rel=1e-4),
        "ranking": pytest.approx(3 * np.mean(ranking), rel=1e-4),
        "identity": pytest.approx(5 * np.mean(identity), rel=1e-4),
    }


def test_aldi_ranks_warm_items_by_the_teacher_and_cold_ones_by_the_student(shop):
    model = fitted(ALDI(ALDIConfig(embedding_dim=4)), shop)
    model.freeze(shop)
    teacher = model.factors.users(shop.matrix[:, :WARM])
    scores = model.score(shop.matrix, np.arange(14))
    np.testing.assert_allclose(scores[:, :WARM], teacher @ model.factors.items.T, atol=1e-5)
    cold = {name: feature.rows(np.arange(10, 14)) for name, feature in shop.features.items()}
    student = (
        model.network.user_map(torch.tensor(teacher)),
        model.network.item_map(model.content.concatenated(cold)),
    )
    np.testing.assert_allclose(scores[:, WARM:], array(student[0] @ student[1].T), atol=1e-5)


def test_freedom_reads_a_modality_of_neighbour_lists_alone(shop, batch):
    given = sp.csr_matrix(np.eye(14, k=1, dtype=np.float32))
    shop = replace(shop, neighbours={"seen_with": given})
    model = fitted(Freedom(FreedomConfig(embedding_dim=4, modalities=("seen_with", "text"))), shop)
    lists = given.toarray()[:WARM, :WARM] + np.eye(WARM)
    degree = lists.sum(axis=1)
    by_text = item_graphs(shop, 10, ("text",))["text"].csr.toarray()
    expected = (lists / np.sqrt(np.outer(degree, degree)) + by_text) / 2
    np.testing.assert_allclose(model.items_graph.csr.toarray(), expected, atol=1e-6)
    assert len(model.network.projections()) == 1
    alone = fitted(Freedom(FreedomConfig(embedding_dim=4, modalities=("seen_with",))), shop)
    assert list(alone.loss(batch)) == ["bpr"]


@pytest.mark.parametrize(
    "model",
    [BM3(BM3Config()), MGCN(MGCNConfig()), PGL(PGLConfig()), VBPR(VBPRConfig())],
    ids=lambda model: type(model).__name__,
)
def test_neighbour_lists_are_no_content_for_a_model_that_reads_features(shop, model):
    lists = {"seen_with": sp.csr_matrix(np.eye(14, k=1, dtype=np.float32))}
    with pytest.raises(DataError, match="no warm item has any content"):
        model.fit(replace(shop, features={}, neighbours=lists))


def test_freedom(shop, batch):
    config = FreedomConfig(embedding_dim=4, neighbours=3, modality_weight=0.5)
    model = fitted(Freedom(config), shop)
    model.begin_epoch(np.random.default_rng(0))
    start = array(model.network.ids.users), array(model.network.ids.items)
    smooth = model.items_graph.csr.toarray() @ start[1]

    def embed(matrix):
        users, items = rounds(matrix, *start, 2)
        return users, items + smooth

    assert model.thinned.csr.nnz == int(0.2 * model.graph.csr.nnz)
    users, items = embed(model.thinned.csr)
    losses = model.loss(batch)
    assert losses["bpr"].item() == pytest.approx(bpr(users, items, batch), rel=1e-4)
    projected = [array(each) for each in model.network.projections()]
    by_content = sum(bpr(users, each, batch) for each in projected)
    assert losses["modality"].item() == pytest.approx(0.5 * by_content, rel=1e-4)
    for found, expected in zip(model.embed(), embed(model.graph.csr), strict=True):
        np.testing.assert_allclose(array(found), expected, atol=1e-5)


def test_bm3(shop, batch):
    config = BM3Config(embedding_dim=4, dropout=0.0, content_weight=0.5, regularization=0.2)
    model = fitted(BM3(config), shop)
    ids, predict = model.network.ids, model.network.predictor
    users, items = rounds(shop.matrix[:, :WARM], array(ids.users), array(ids.items), 1)
    items = items + array(ids.items)

    def distance(a, b):
        return 1 - cosine(array(predict(torch.tensor(a).float())), b)

    agreement, content = [], {name: [] for name in model.inputs}
    for u, i, _ in triples(batch):
        agreement.append(distance(users[u], items[i]) + distance(items[i], users[u]))
        for name, projected in zip(model.inputs, model.network.projections(), strict=True):
            if shop.features[name].present[i]:
                own = array(projected)[i]
                content[name].append(distance(own, items[i]) + distance(own, own))
    losses = model.loss(batch)
    assert losses["agreement"].item() == pytest.approx(np.mean(agreement), rel=1e-4)
    assert len(content["image"]) == 3  # item 3 has no picture
    expected = 0.5 * sum(np.mean(each) for each in content.values())
    assert losses["content"].item() == pytest.approx(expected, rel=1e-4)


def test_a_batch_of_bm3_without_content_has_no_term_for_it(shop):
    for feature in shop.features.values():
        feature.present[:2] = False
        feature.values[:2] = 0
    model = fitted(BM3(BM3Config(embedding_dim=4)), shop)
    bare = Triplets(torch.tensor([0, 4]), torch.tensor([0, 1]), torch.tensor([[5], [6]]))
    losses = model.loss(bare)
    assert losses["content"].item() == 0
    assert losses["agreement"].item() > 0


def test_bm3_teaches_the_side_that_predicts_alone(shop):
    model = fitted(BM3(BM3Config(embedding_dim=4)), shop)
    online, target = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    model._distance(online, target).backward()
    assert online.grad.abs().sum() > 0
    assert target.grad is None


def test_mgcn(shop, batch):
    config = MGCNConfig(embedding_dim=4, neighbours=3, contrast_weight=0.5)
    model = fitted(MGCN(config), shop)
    net, matrix = model.network, shop.matrix[:, :WARM]
    start = array(net.ids.users), array(net.ids.items)
    behaviour = np.concatenate(rounds(matrix, *start, 2))
    normal = model.graph.symmetric.csr.toarray()
    views = []
    for place, x in enumerate(model.inputs.values()):
        gate = array(net.purify[place](net.projections.maps[place](x)))
        items = model.item_graphs[place].csr.toarray() @ (start[1] * gate)
        views.append(np.concatenate([normal @ items, items]))
    energy = np.stack([array(net.attend(torch.tensor(v).float()))[:, 0] for v in views])
    weight = np.exp(energy) / np.exp(energy).sum(axis=0)
    common = sum(w[:, None] * view for w, view in zip(weight, views, strict=True))
    content = common.copy()
    for place, view in enumerate(views):
        gate = array(net.prefer[place](torch.tensor(behaviour).float()))
        content += gate * (view - common)
    content /= len(views) + 1
    both = behaviour + content
    losses = model.loss(batch)
    assert losses["bpr"].item() == pytest.approx(bpr(both[:30], both[30:], batch), rel=1e-4)
    rows = [[0, 4, 7], [30, 33, 34, 37]]  # each user and item once
    contrast = sum(info_nce(content[row], behaviour[row], 0.2) for row in rows)
    assert losses["contrast"].item() == pytest.approx(0.5 * contrast, rel=1e-3)


def test_pgl(shop, batch):
    config = PGLConfig(embedding_dim=4, neighbours=3, dropout=0.0, contrast_weight=0.5)
    model = fitted(PGL(config), shop)
    model.begin_epoch(np.random.default_rng(0))
    net = model.network
    parts = [
        unit(array(project(x))) for project, x in zip(net.projections, net.features, strict=True)
    ]
    start = np.concatenate(parts, axis=1)

    def embed(matrix):
        users, items = rounds(matrix, array(net.users), start, 2)
        return users, items + model.items_graph.csr.toarray() @ start

    assert model.principal.csr.nnz == int(0.3 * model.graph.csr.nnz)
    users, items = embed(model.principal.csr)
    losses = model.loss(batch)
    assert losses["bpr"].item() == pytest.approx(bpr(users, items, batch), rel=1e-4)
    rows = users[[0, 4, 7]], items[[0, 3, 4, 7]]
    contrast = np.mean([info_nce(each, each, 0.2) for each in rows])
    assert losses["contrast"].item() == pytest.approx(0.5 * contrast, rel=1e-3)
    for found, expected in zip(model.embed(), embed(model.graph.csr), strict=True):
        np.testing.assert_allclose(array(found), expected, atol=1e-5)


CASES = [
    (ALDI, ALDIConfig),
    (AlphaRec, AlphaRecConfig),
    (BM3, BM3Config),
    (CLCRec, CLCRecConfig),
    (DropoutNet, DropoutNetConfig),
    (Freedom, FreedomConfig),
    (GAR, GARConfig),
    (LightGCN, LightGCNConfig),
    (MGCN, MGCNConfig),
    (PGL, PGLConfig),
    (VBPR, VBPRConfig),
]


@pytest.mark.parametrize(("kind", "config"), CASES)
def test_every_parameter_is_trained(shop, wide, kind, config):
    """A parameter without a gradient would hang training on several processes."""
    model = fitted(kind(config(embedding_dim=4)), shop)
    model.network.train()
    loss = torch.stack(list(model.loss(wide).values())).sum()
    assert gradients(loss, model.network) == {n for n, _ in model.network.named_parameters()}


@pytest.mark.parametrize(("kind", "config"), CASES)
def test_constants_are_neither_trained_nor_stored(shop, kind, config):
    model = fitted(kind(config(embedding_dim=4)), shop)
    parameters = {name for name, _ in model.network.named_parameters()}
    assert set(model.network.state_dict()) == parameters
