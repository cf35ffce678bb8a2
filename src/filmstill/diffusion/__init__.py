"""The schedule, the teacher's sampler, the student's rollout and the losses."""
