"""Sample sheets of a training."""

from pathlib import Path

import imageio.v3 as iio
import torch

from filmstill.runtime.image import as_bytes, enlarged, save_sheet, spread


def test_small_clips_are_enlarged_by_squares(tmp_path: Path) -> None:
    video = torch.rand(3, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_sheet(video, tmp_path / "sheet.png")
    sheet = torch.from_numpy(iio.imread(tmp_path / "sheet.png"))
    assert sheet.shape == (3 * 98, 12 * 98, 3)
    for clip in range(3):
        for frame in range(12):
            shown = sheet[1 + clip * 98 : 97 + clip * 98, 1 + frame * 98 : 97 + frame * 98]
            assert torch.equal(shown, enlarged(as_bytes(video[clip, frame]), 3))


def test_large_clips_are_scaled_down_and_broken_ones_drawn(tmp_path: Path) -> None:
    video = torch.full((1, 30, 3, 256, 448), 0.5)
    video[0, 0] = float("nan")
    video[0, 29] = 7.0
    save_sheet(video, tmp_path / "sheet.png")
    sheet = iio.imread(tmp_path / "sheet.png")
    assert sheet.shape == (130, 12 * 226, 3)
    assert [sheet[64, 113 + 226 * column].tolist() for column in (0, 5, 11)] == [[0] * 3, [128] * 3, [255] * 3]


def test_spread_has_both_ends_and_no_index_twice() -> None:
    assert spread(12, 12) == list(range(12)) and spread(1, 12) == [0]
    for count in range(2, 40):
        for most in range(2, 20):
            indices = spread(count, most)
            assert len(set(indices)) == min(count, most) and indices[0] == 0 and indices[-1] == count - 1
