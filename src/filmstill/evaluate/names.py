"""What the arms of a comparison are called in files and metrics."""

ARMS = ("real", "teacher", "undistilled", "init", "student")  # the same prompts, the same seeds, one clip long
LONG_ARM = "student_long"  # the student's long stream, for drift
EVERY_ARM = (*ARMS, LONG_ARM)
