#!/bin/bash
# What only a GPU can tell: parity with the official code, kernels, speed beside PyTorch, one real training.
#
#   bash scripts/gpu_check.sh OUT [OFFICIAL [FASHION]]
#
# OUT gets a log and the JSON of each part. OFFICIAL is a checkout of https://github.com/iVMCL/PaCaViT, whose code runs with what
# benchmarks/against_torch.py names; FASHION is a folder with the four files of Fashion-MNIST. Parts of what is not given are left out.
# It needs JAX for CUDA, pytest and the packages for training but TensorFlow; PYTHON chooses the interpreter.
#
# The parts of a group run side by side, for most of their time they compile: measurements wait for each other and for the tests. XLA
# tries kernels while it compiles, beside the other parts: repeat a number that matters alone.
# Parts do not depend on each other: one that fails, or takes longer than its limit in seconds, does not stop the next.
set -u
OUT=${1:?Give a folder for the results.}
OFFICIAL=${2:-} FASHION=${3:-} PYTHON=${PYTHON:-python3}
SMALL=pacavit_small_p2cconv_100_0 TINY=pacavit_tiny_p2cconv_100_0 BASE=pacavit_base_p2cconv_100_0
mkdir -p "$OUT"
export BENCHMARKS_LOCK=$OUT/lock XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_PLATFORMS=cuda,cpu PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
STEP="$PYTHON -m benchmarks.step --batch 128 --dtype bfloat16 --profile"
BESIDE="flock --shared $BENCHMARKS_LOCK timeout" # measurements wait for it
PARTS=()

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  PARTS+=("$name")
  { timeout "$limit" "$@" >"$OUT/$name.log" 2>&1; echo "== $name: status $? after $SECONDS s" | tee -a "$OUT/$name.log"; } &
}

end_of_group() {
  wait
  for name in "${PARTS[@]}"; do
    printf '\n== %s\n' "$name"
    tail -n 60 "$OUT/$name.log"
  done
  PARTS=()
}

touch "$BENCHMARKS_LOCK"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$OUT/gpu.txt"
part kernels 300 $BESIDE 200 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/gpu/test_kernels.py -n 3
part parity 300 $BESIDE 250 "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/gpu/test_parity.py -n 5
part small 400 $STEP --model $SMALL --json "$OUT/small.json"
part cublas_small 400 env XLA_FLAGS=--xla_gpu_enable_triton_gemm=false $STEP --model $SMALL --json "$OUT/cublas_small.json"
part plain_small 400 env PACA_JAX_IMPLEMENTATION=xla $STEP --model $SMALL --json "$OUT/plain_small.json"
part operations 400 "$PYTHON" -m benchmarks.operations --json "$OUT/operations.json"
end_of_group
if [ -n "$OFFICIAL" ]; then
  part against_torch 400 "$PYTHON" -m benchmarks.against_torch --official "$OFFICIAL" --model $SMALL $TINY --batch 128 --dtype bfloat16 \
    --torch channels_last compiled --json "$OUT/against_torch.json"
fi
if [ -n "$FASHION" ]; then
  "$PYTHON" -m scripts.fashion_mnist_folder "$FASHION" "$OUT/fashion"
  part training 400 $BESIDE 350 "$PYTHON" main.py --config=configs/fashion_mnist.py --config.dataset.name=folder \
    --config.dataset.data_dir="$OUT/fashion" --config.dataset.eval_split=validation --config.dataset.num_workers=8 \
    --config.batch_size=128 --config.num_epochs=10.0 --config.eval_every_steps=2000 --config.checkpoint_every_steps=1000 \
    --workdir="$OUT/run"
fi
part base 400 $STEP --model $BASE --json "$OUT/base.json"
end_of_group
