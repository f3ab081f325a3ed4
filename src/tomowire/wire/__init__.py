"""Bytes <-> values, pure and stateless: PDUs and their items (PS3.8 9.3), PDV headers (PS3.8 annex E), command sets (PS3.7 6.3)
and the file meta information of Part 10 files (PS3.10 7.1).

Nothing here keeps state between two calls, reads a clock or a socket, or looks inside a data set. Reading raises only the error
that its function declares; a length in the input is compared with the bytes at hand before anything is done with it.
"""
