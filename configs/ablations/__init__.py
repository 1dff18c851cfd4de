"""What ablations compare, a file each: `patch-svdd sweep --ablation NAME`."""
