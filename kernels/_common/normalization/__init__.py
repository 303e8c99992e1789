"""What instance norm and batch norm have in common on CUDA: channels normalized by statistics of groups of samples."""
