"""`lorbms-fast app`: look at a run and try transfers in the browser."""

import webbrowser

from lorbms_fast.commands.options import RunFolder


def app(run: RunFolder, /, *, port: int = 8000, open: bool = False) -> None:
    """Serve a page on this machine: transfers by drag and click, neighbours, curves and sheets.

    The page can be reached from this machine only. For a run on another machine, forward the port, e.g.
    ssh -L 8000:127.0.0.1:8000 MACHINE, and open http://127.0.0.1:8000/ here. Ctrl-C stops it. The run may still be
    training: the newest checkpoint is used.

    Args:
        run: Folder of a training run.
        port: Port of 127.0.0.1; 0 takes a free one.
        open: Open the page in the browser.
    """
    print(f"opening {run}", flush=True)  # what is imported now takes seconds, 20 on a busy machine
    from lorbms_fast.app.server import HOST, serve
    from lorbms_fast.app.view import RunView

    view = RunView.open(run)
    if view.store is None:
        print(f"the store {view.run.store} cannot be opened: pictures and neighbours of it are left out")
    server = serve(view, port)
    address = f"http://{HOST}:{server.port}/"
    print(f"{address}  (Ctrl-C stops it)", flush=True)
    if open:
        webbrowser.open(address)
    server.serve_forever()
