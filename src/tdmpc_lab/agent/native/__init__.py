"""Planning in compiled kernels: bfloat16 products with float32 sums, everything around them done in the cache.

An accelerator, never a condition: without a compiler or without a processor that multiplies bfloat16 all runs through
torch, see `tdmpc_lab.agent.native.choose`.
"""
