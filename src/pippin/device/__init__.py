"""The on-device engine: palettized models on a CPU, without torch (C++ in csrc/, reached through ctypes)."""
