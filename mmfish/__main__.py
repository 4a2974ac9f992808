"""``python -m mmfish`` is the command ``mmfish``, in the form that torchrun can start."""

from mmfish.cli import main

if __name__ == '__main__':
    main()
