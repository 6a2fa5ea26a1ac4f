#!/bin/bash
# What only a GPU can tell: parity with the official code, kernels, speed beside PyTorch, one real training.
#
#   bash scripts/gpu_check.sh OUT [OFFICIAL [FASHION]]
#
# OUT gets a log and the JSON of each part. OFFICIAL is a checkout of https://github.com/iVMCL/PaCaViT, whose code runs with what
# benchmarks/against_torch.py names; FASHION is a folder with the four files of Fashion-MNIST. Parts of what is not given are left out.
# It needs JAX for CUDA, pytest and the packages for training but TensorFlow; PYTHON chooses the interpreter. Parts do not depend on each
# other: one that fails, or takes longer than its limit in seconds, does not stop the next.
set -u
OUT=${1:?Give a folder for the results.}
OFFICIAL=${2:-} FASHION=${3:-} PYTHON=${PYTHON:-python3}
SMALL=pacavit_small_p2cconv_100_0 TINY=pacavit_tiny_p2cconv_100_0
mkdir -p "$OUT"
export JAX_PLATFORMS=cuda,cpu PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  echo "== $name"
  timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
  echo "== $name: status ${PIPESTATUS[0]}"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$OUT/gpu.txt"
part small 200 "$PYTHON" -m benchmarks.step --model $SMALL --batch 128 --dtype bfloat16 --json "$OUT/small.json"
if [ -n "$OFFICIAL" ]; then
  part against_torch 300 "$PYTHON" -m benchmarks.against_torch --official "$OFFICIAL" --model $SMALL $TINY --batch 128 --dtype bfloat16 \
    --torch channels_last compiled --json "$OUT/against_torch.json"
fi
part kernels 120 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/gpu/test_kernels.py
part operations 150 "$PYTHON" -m benchmarks.operations --json "$OUT/operations.json"
part parity 200 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/gpu/test_parity.py -n 6
if [ -n "$FASHION" ]; then
  part folder 60 "$PYTHON" scripts/fashion_mnist_folder.py "$FASHION" "$OUT/fashion"
  part training 300 "$PYTHON" main.py --config=configs/fashion_mnist.py --config.dataset.name=folder --config.dataset.data_dir="$OUT/fashion" \
    --config.dataset.eval_split=validation --config.dataset.num_workers=8 --config.batch_size=128 --config.num_epochs=10.0 \
    --config.eval_every_steps=2000 --config.checkpoint_every_steps=1000 --workdir="$OUT/run"
fi
part plain_small 200 env PACA_JAX_IMPLEMENTATION=xla "$PYTHON" -m benchmarks.step --model $SMALL --batch 128 --dtype bfloat16 --json "$OUT/plain_small.json"
part base 300 "$PYTHON" -m benchmarks.step --model pacavit_base_p2cconv_100_0 --batch 128 --dtype bfloat16 --json "$OUT/base.json"
