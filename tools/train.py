"""MMDetection's name for ``mmfish train``; ``tools/dist_train.sh`` starts it on several GPUs."""

from mmfish_command import main

if __name__ == '__main__':
    main('train')
