"""Small data of a lab's own other than behaviour: videos with a value a frame, tracked points, fields."""

from pathlib import Path

import av  # noqa: TID253  (videos for the tests)
import numpy as np
import pytest
import xarray as xr  # noqa: TID253  (fields for the tests)


def write_frames(path: Path, frames: np.ndarray) -> Path:
    """A lossless video of frames [F Y X rgb]."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
            )
        container.mux(stream.encode())
    return path


def levels(video: int, n_frames: int = 48) -> np.ndarray:
    """How bright each frame of a video is."""
    return np.linspace(30 + 25 * video, 60 + 25 * video, n_frames).astype(np.uint8)


SIZE, FRAMES = 48, 32


def path_of(video: int, point: int) -> np.ndarray:
    """Where a point is in each frame [F xy], in pixels: it goes to the right."""
    return np.stack([4.0 + 8 * point + np.linspace(0, 12, FRAMES), np.full(FRAMES, 6.0 + 6 * video)], axis=1)


def dlc_columns(video: int) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Names and numbers of a table of DeepLabCut's; the second point is lost from frame 20 on."""
    found = np.stack([path_of(video, point) for point in range(3)], axis=1)
    sure = np.full((FRAMES, 3, 1), 0.95)
    sure[20:, 1] = 0.1
    names = [("net", f"p{point}", coord) for point in range(3) for coord in ("x", "y", "likelihood")]
    return names, np.concatenate([found, sure], axis=2).reshape(FRAMES, -1)


def write_points(folder: Path, form: str) -> None:
    if form == "dlc.csv":
        for video in range(4):
            names, table = dlc_columns(video)
            titles = zip(("scorer", "bodyparts", "coords"), zip(*names, strict=True), strict=True)
            heads = [",".join((title, *cells)) for title, cells in titles]
            rows = [",".join(map(str, (frame, *row))) for frame, row in enumerate(table)]
            (folder / f"d{video}DLC_net.csv").write_text("\n".join([*heads, *rows]) + "\n")
        return
    sio = pytest.importorskip("sleap_io", reason="needs scivid[tracks]")
    if form == "dlc.h5":
        import pandas as pd

        for video in range(4):
            names, table = dlc_columns(video)
            columns = pd.MultiIndex.from_tuples(names, names=["scorer", "bodyparts", "coords"])
            frame = pd.DataFrame(table, columns=columns)
            frame.to_hdf(folder / f"d{video}DLC_net.h5", key="df_with_missing", format="table", mode="w")
        return
    skeleton, track = sio.Skeleton([f"p{point}" for point in range(3)]), sio.Track("mouse")
    for video in range(4):
        film = sio.Video(f"/elsewhere/d{video}.mp4", open_backend=False)
        frames = []
        for at in range(FRAMES):
            points = np.stack([path_of(video, point)[at] for point in range(3)])
            points[1] = np.nan if at >= 20 else points[1]
            one = sio.PredictedInstance.from_numpy(
                points, skeleton=skeleton, point_scores=np.full(3, 0.95), score=0.9, track=track
            )
            frames.append(sio.LabeledFrame(video=film, frame_idx=at, instances=[one]))
        labels = sio.Labels(frames, videos=[film], skeletons=[skeleton], tracks=[track])
        labels.save(str(folder / f"d{video}.slp"))


def weather(n_times: int = 60) -> xr.Dataset:
    """A small global series: waves that go east, one a level, every six hours."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(n_times) * np.timedelta64(6, "h")
    levels, latitude, longitude = (
        np.array([500.0, 850.0]),
        np.linspace(90, -90, 13),
        np.arange(0.0, 360.0, 30.0),
    )
    angle = np.radians(longitude) - 0.4 * np.arange(n_times)[:, None]
    wave = np.sin(angle)[:, None, None, :] * np.cos(np.radians(latitude))[None, None, :, None]
    z = 50_000 + 1_000 * np.array([1.0, 0.5])[None, :, None, None] * wave
    t = 280 + 10 * np.array([0.5, 1.0])[None, :, None, None] * wave
    dims = ("time", "isobaricInhPa", "latitude", "longitude")
    fields = {"z": (dims, z.astype(np.float32)), "t": (dims, t.astype(np.float32))}
    return xr.Dataset(fields, dict(zip(dims, (times, levels, latitude, longitude), strict=True)))


def write_grib(path: Path, whole: xr.Dataset) -> None:
    """A message a variable, time and level, as an archive gives them."""
    eccodes = pytest.importorskip("eccodes", reason="needs scivid[fields]")
    with path.open("wb") as file:
        for name in ("z", "t"):
            for at in range(whole.sizes["time"]):
                for level in (0, 1):
                    message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
                    time = whole["time"].values[at].astype("datetime64[m]").item()
                    keys = {
                        "Ni": 12, "Nj": 13,
                        "latitudeOfFirstGridPointInDegrees": 90, "longitudeOfFirstGridPointInDegrees": 0,
                        "latitudeOfLastGridPointInDegrees": -90, "longitudeOfLastGridPointInDegrees": 330,
                        "iDirectionIncrementInDegrees": 30, "jDirectionIncrementInDegrees": 15,
                        "dataDate": int(f"{time:%Y%m%d}"), "dataTime": int(f"{time:%H%M}"),
                        "level": (500, 850)[level], "shortName": name, "bitsPerValue": 24,
                    }  # fmt: skip
                    for key, value in keys.items():
                        eccodes.codes_set(message, key, value)
                    values = whole[name].values[at, level].astype(np.float64)
                    eccodes.codes_set_values(message, values.ravel())
                    eccodes.codes_write(message, file)
                    eccodes.codes_release(message)


def write_fields(folder: Path, form: str) -> None:
    whole = weather()
    folder.mkdir()
    if form == "NetCDF":
        # As the Climate Data Store gives them, in two files.
        named = whole.rename(time="valid_time", isobaricInhPa="pressure_level")
        for part, times in enumerate((slice(0, 25), slice(25, 60))):
            named.isel(valid_time=times).to_netcdf(folder / f"part{part}.nc", engine="h5netcdf")
    elif form == "GRIB":
        write_grib(folder / "era5.grib", whole)
    else:
        # From -180 on, as many a model has it.
        turned = whole.roll(longitude=6, roll_coords=True)
        turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180)
        turned.chunk(time=7, isobaricInhPa=1).to_zarr(folder / "run.zarr", zarr_format=3, consolidated=False)


def write_bright(folder: Path) -> Path:
    """Six videos of evenly grey frames, brighter and brighter."""
    folder.mkdir()
    for video in range(6):
        frames = np.broadcast_to(levels(video)[:, None, None, None], (48, 32, 48, 3))
        write_frames(folder / f"v{video}.mp4", frames)
    return folder


def write_glow(path: Path) -> None:
    """A table of how bright frames are, of which nobody measured the first, nor any of the last video."""
    rows = ["video,frame,glow (lx)"]
    for video in range(6):
        for frame, level in enumerate(levels(video)):
            rows.append(f"v{video}.mp4,{frame},{'' if frame < 8 or video == 5 else level / 10}")
    path.write_text("\n".join(rows))


def write_dots(folder: Path) -> Path:
    """Four videos in which three dots move."""
    folder.mkdir()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for video in range(4):
        grey = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
        for x, y in (path_of(video, point).T[..., None, None] for point in range(3)):
            grey |= (np.hypot(columns - x, rows - y) < 3).astype(np.uint8) * 255
        write_frames(folder / f"d{video}.mp4", np.repeat(grey[..., None], 3, axis=-1))
    return folder
