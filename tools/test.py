"""MMDetection's name for ``mmfish test``; ``tools/dist_test.sh`` starts it on several GPUs."""

from mmfish_command import main

if __name__ == '__main__':
    main('test')
