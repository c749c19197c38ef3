"""What a trained run says of videos it was never shown, or of the clips of a store.

Windows slide over a video (`videos`), a kind of run makes rows of numbers of them (`kinds`: classes, values,
tracked points), which are averaged over the frames they stand for (`frames`) and kept a part a video
(`parts`); what is written is the kind's: tables, bouts, label files, pictures. `job` does it for many videos
and goes on where it was killed. No part of it holds a video, or the scores of one. Of a store (`splits`)
there are tables, or forecasts as fields.
"""
