"""What a trained run says of videos it was never shown, or of the clips of a store.

Windows slide over a video (`videos`), their scores are averaged over the frames they stand for (`frames`) and
kept a part a video (`parts`), scores become bouts (`bouts`), and all that is written down (`tables`,
`label_files`, pictures). `job` does it for many videos and goes on where it was killed. No part of it holds a
video, or the scores of one.
"""
