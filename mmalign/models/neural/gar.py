"""GAR: a generator of item vectors against a recommender that tells them from trained ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmalign.models.neural.base import Triplets, pair_scores
from mmalign.models.neural.transfer import (
    TransferConfig,
    TransferModel,
    TransferNetwork,
    tanh_tower,
)
from mmalign.objectives import ranking

__all__ = ["GAR", "GARConfig"]


@dataclass(frozen=True)
class GARConfig(TransferConfig):
    """GAR.

    Attributes:
        similarity: Share of likeness to the trained vector in the generator's loss; the rest is
            outranking it.
        adversarial: Share of ranking trained vectors above generated ones in the recommender's
            loss; the rest is ranking what was taken above what was not.
    """

    similarity: float = 0.5
    adversarial: float = 0.1


class _Network(TransferNetwork):
    def __init__(self, config: GARConfig, *constants: Tensor) -> None:
        super().__init__(*constants)
        dim, hidden = config.embedding_dim, config.hidden_dim
        self.generator = tanh_tower(self.content.shape[1], hidden, dim)
        self.user_map = nn.Linear(dim, dim)
        self.item_map = nn.Linear(dim, dim)
        for linear in (self.user_map, self.item_map):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)


class GAR(TransferModel[GARConfig]):
    """Chen et al., 2022, "Generative adversarial framework for cold-start item recommendation".

    SIGIR 2022, doi:10.1145/3477495.3531897. A generator makes ``G(x_i)`` in the space of the
    factorisation's ``V_i``; the recommender ranks by ``s(u, v) = <A U_u, B v>``. The generator
    minimises ``a |G - V|^2 + (1 - a) BPR(s(u, G_i) > s(u, V_i))``, the recommender
    ``b BPR(s(u, V_i) > s(u, G_i)) + (1 - b) BPR(s(u, V_i) > s(u, V_j))``; neither gets gradients
    of the other's loss, and both step at once. The paper's mappers are deeper networks; these are
    linear and start as the identity, so that training starts from the factorisation's ranking.
    """

    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """Generator and recommender."""
        return _Network(self.config, *self.constants())

    def map_users(self, start: Tensor) -> Tensor:
        """The recommender's map of users."""
        mapped: Tensor = self.network.user_map(start)
        return mapped

    def embed(self) -> tuple[Tensor, Tensor]:
        """Trained vectors through the recommender's maps."""
        net = self.network
        return self.map_users(net.users), net.item_map(net.items)

    def encode(self, content: Tensor) -> Tensor:
        """Generated vectors through the recommender's map."""
        mapped: Tensor = self.network.item_map(self.network.generator(content))
        return mapped

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """The generator's and the recommender's loss."""
        net, config = self.network, self.config
        generated: Tensor = net.generator(net.content)
        users, items = self.embed()
        positive, negative = pair_scores(users, items, batch)
        fooled, _ = pair_scores(users.detach(), _frozen(net.item_map, generated), batch)
        fake, _ = pair_scores(users, net.item_map(generated.detach()), batch)
        likeness = (generated - net.items)[batch.positives].square().sum(dim=1).mean()
        return {
            "similarity": config.similarity * likeness,
            "fooling": (1 - config.similarity) * ranking.bpr(fooled, positive.detach()[:, None]),
            "adversarial": config.adversarial * ranking.bpr(positive, fake[:, None]),
            "rank": (1 - config.adversarial) * ranking.bpr(positive, negative),
        }


def _frozen(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a map whose parameters get no gradient."""
    return nn.functional.linear(x, linear.weight.detach(), linear.bias.detach())
