"""The plane that sizes of objects tell of: the same bits wherever the numbers lie in memory."""

import torch

from maskcast.models.objects.plane import fit_plane


def test_the_plane_does_not_depend_on_where_the_numbers_lie() -> None:
    # Some builds of torch round sums by how the numbers are aligned, which differs from process to process.
    generator = torch.Generator().manual_seed(0)
    for count in range(120, 1200, 87):
        class_M = torch.randint(1, 49, (count,), generator=generator)
        centre_M2 = torch.rand(count, 2, generator=generator) - 0.5
        noise_M = 1 + 0.1 * torch.randn(count, generator=generator)
        std_M = (0.03 + 0.001 * class_M) * (1 + centre_M2 @ torch.tensor([0.1, 0.4])) * noise_M
        planes = set()
        for offset in range(16):  # in packed tracks they lie strided
            packed_M8 = torch.zeros(count * 8 + 16)[offset : offset + count * 8].view(count, 8)
            packed_M8[:, 2:4], packed_M8[:, 4] = centre_M2, std_M
            plane = fit_plane(class_M, packed_M8[:, 2:4], packed_M8[:, 4])
            assert plane is not None
            planes.add(tuple(plane.tolist()))
        assert len(planes) == 1
        (found,) = planes
        assert abs(found[6] - 0.1) < 0.05
        assert abs(found[7] - 0.4) < 0.05
