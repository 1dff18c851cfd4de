"""What this package takes on the machine at hand, beside other libraries on the same work.

python -m benchmarks.nearest
python -m benchmarks.train
"""
