"""What instance norm and batch norm have in common on CUDA: channels normalised by statistics of groups of samples."""
