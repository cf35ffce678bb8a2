"""Training: the loop, the three trainings that run in it, and the setup that the student's stages share."""
