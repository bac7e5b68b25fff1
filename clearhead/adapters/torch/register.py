"""Register the operators' kernels, shapes, derivatives and vmap rules with torch's dispatcher, on import."""

from __future__ import annotations

import torch

from clearhead.adapters.torch import card, dispatch, functional, host, vmap

for operator, kernel, fake, derivatives, batched in (
    (dispatch.operator, host.on_processor, host.forward_shapes, functional.ForwardFunction, vmap.together),
    (
        dispatch.backward_operator,
        host.backward_on_processor,
        host.backward_shapes,
        functional.BackwardFunction,
        vmap.one_by_one,
    ),
    (
        dispatch.tangent_operator,
        host.tangent_on_processor,
        host.tangent_shapes,
        functional.TangentFunction,
        vmap.one_by_one,
    ),
    (
        dispatch.second_operator,
        host.second_on_processor,
        host.second_shapes,
        functional.SecondFunction,
        vmap.one_by_one,
    ),
):
    name, derivatives.operator, derivatives.batched = operator._schema.name, operator, staticmethod(batched)
    dispatch.LIBRARY.impl(name, kernel, "CPU")
    dispatch.LIBRARY.impl(name, host.refuse_location, "CompositeExplicitAutograd")
    dispatch.LIBRARY.impl(name, derivatives.dispatched, "Autograd")
    torch.library.register_fake(name, fake, lib=dispatch.LIBRARY)
    torch.library.register_vmap(name, batched(operator), lib=dispatch.LIBRARY)
dispatch.LIBRARY.impl(dispatch.operator._schema.name, card.on_card, "CUDA")
