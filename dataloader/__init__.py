"""Image stores: photographs decoded once, read back as batches by index.

`prepare` makes a store, `store` opens one, `batches` draws a reference and its candidates from it, `in_batch`
needs no neighbours; `sources` reads folders, COCO, tar shards, STL-10 and VOC, `decoders` JPEGs. The format is in
docs/store.md.
"""
