"""Losses only: one file per distillation objective, and the regression losses of denoisers (denoising.py).

| name | file   | paper                              | networks                       | cost per generator update     |
|------|--------|------------------------------------|--------------------------------|-------------------------------|
| dmd  | dmd.py | arXiv:2311.18828, arXiv:2405.14867 | frozen teacher, trained critic | 2 teacher passes, 1 of critic |

The cost counts forward passes over the generated clip in the loss; the rollout of the clip and its backward pass come
on top for every objective.

dmd: the teacher's two passes are the branches of guidance, in one batch. Neither the teacher nor the critic has a
gradient in them. There are `critic_updates` updates of the critic per generator update, each with a rollout without
gradient and a forward and backward pass of the critic.
"""
