"""Noise schedule, addressed noise, the teacher's sampler and the student's rollout."""
