"""The table of answers: what a peer, the network or our own side may say, what happens next, what a person can do.

`statuses` (DIMSE), `connections` (rejections, aborts, time-outs, sockets) and `reasons` (what arose here) hold the
rows, `quirks` what a remote has otherwise. Whoever needs an answer asks `dimse_status`.
"""
