"""MMDetection's name for ``mmfish print-config``."""

from mmfish_command import main

if __name__ == '__main__':
    main('print-config')
