#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command of less than ten minutes, written to a folder:
#
#     bash bench/gpu.sh OUT [--crop PIXELS] [--batch IMAGES] [--model NAME] [--gpu NAME] [--steps COUNT] \
#         [--tests PATTERN] [--torch-device NAME]
#
# The adapter and its self-test, kernels chosen by measurement, the PrevMatch step of the Pascal configuration (ResNet-50,
# crop 321, 8 + 8 images) with and without AMP and its kernel profile, the same step in PyTorch (python3 with torch), large
# convolutions beside the fastest f16 product, and the test suite. The most important parts come first. OUT/summary.txt says
# how each part went, what was skipped and why, and the figures beside each other. Needs `npm run build`. Ends with 1 where a
# part failed.
set -uo pipefail
usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
[ $# -gt 0 ] && [[ $1 != -* ]] || usage
out=$1
shift
crop=321 batch=8 model=resnet50 gpu='' steps=50 tests='' device=cuda
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || usage
  case $1 in
    --crop) crop=$2 ;;
    --batch) batch=$2 ;;
    --model) model=$2 ;;
    --gpu) gpu=$2 ;;
    --steps) steps=$2 ;;
    --tests) tests=$2 ;;
    --torch-device) device=$2 ;;
    *) usage ;;
  esac
  shift 2
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
summary=$out/summary.txt
: >"$summary"
failed=0
whole=585

note() { echo "$*" | tee -a "$summary"; }

# Megabytes in use on the first GPU, several times a second, until killed.
sample() { while sleep 0.2; do nvidia-smi --id=0 --query-gpu=memory.used --format=csv,noheader,nounits; done; }

# part NAME SECONDS COMMAND...: its output goes to NAME.txt.
part() {
  local name=$1 limit=$2 begin=$SECONDS code sampler='' memory=''
  shift 2
  [ $((whole - SECONDS)) -ge "$limit" ] || limit=$((whole - SECONDS))
  if [ "$limit" -lt 10 ]; then
    note "SKIPPED $name: the ten minutes are over"
    failed=1
    return
  fi
  if command -v nvidia-smi >/dev/null; then
    sample >"$out/$name-memory.txt" 2>/dev/null &
    sampler=$!
  fi
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  code=$?
  if [ -n "$sampler" ]; then
    kill "$sampler" && wait "$sampler"
    memory=", at most $(sort -n "$out/$name-memory.txt" | tail -n 1) MB of the GPU in use"
  fi 2>/dev/null
  case $code in
    0) note "ok      $name, $((SECONDS - begin)) s$memory: $(tail -n 1 "$out/$name.txt")" ;;
    124) note "TIMEOUT $name, over $limit s: $(tail -n 1 "$out/$name.txt")" ;;
    *) note "FAILED  $name, exit code $code: $(tail -n 1 "$out/$name.txt")" ;;
  esac
  [ "$code" -eq 0 ] || failed=1
}

on=()
[ -z "$gpu" ] || on=(--gpu "$gpu")
sizes=(--crop "$crop" --batch "$batch")
# The bench's small model, for trying this script, has a size of its own.
step_sizes=("${sizes[@]}")
[ "$model" != small ] || step_sizes=(--crop 65 --batch 2)

part doctor 30 node dist/doctor.js "${on[@]}"
half=true
grep -q 'shader-f16 *yes' "$out/doctor.txt" || half=false

# What is measured is kept at once, so that the rest profits from a part that ran out of time.
step() {
  local name=$1
  shift
  part "$name" 75 node build/bench/bench.js --only 'training step prevmatch' --model "$model" "${sizes[@]}" "${on[@]}" \
    --tune known --steps "$steps" --profile "$out/$name-trace.json" --json "$out/$name.json" "$@"
}
if $half; then
  if [ "$model" = small ]; then
    note 'SKIPPED tune-amp: the small model is the bench'"'"'s own'
  else
    part tune-amp 110 node dist/tune.js --set amp=true --model "$model" "${sizes[@]}" "${on[@]}"
  fi
  step step-amp --amp
else
  note 'SKIPPED tune-amp, step-amp: the adapter has no shader-f16'
fi

if ! python3 -c 'import torch' 2>/dev/null; then
  note 'SKIPPED pytorch: python3 has no torch'
elif [ "$device" = cuda ] && ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  note 'SKIPPED pytorch: torch finds no CUDA'
else
  part pytorch 90 python3 bench/pytorch_step.py "${step_sizes[@]}" --model "$model" --steps "$steps" --device "$device" \
    --json "$out/pytorch.json"
fi

amp=()
if $half; then amp=(--amp); else note 'operators: in float32, for want of shader-f16'; fi
part operators 80 node build/bench/bench.js --only layer3 "${amp[@]}" --tune all "${sizes[@]}" "${on[@]}" \
  --json "$out/operators.json"
step step
if [ ! -d test ]; then
  note 'SKIPPED tests: there is no folder test'
elif ! node -e "import('uvu').catch(() => process.exit(1))" 2>/dev/null; then
  note 'SKIPPED tests: uvu is not installed (npm ci installs it)'
else
  part tests 170 node build/test/run.js ${tests:+"$tests"}
fi

node - "$out" <<'JS' | tee -a "$summary"
const { existsSync, readFileSync } = require('node:fs')
const read = (name) => {
  const path = `${process.argv[2]}/${name}.json`
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined
}
const ms = (value) => `${value.toFixed(1)} ms`
const ours = { true: read('step-amp')?.steps[0], false: read('step')?.steps[0] }
for (const amp of [true, false]) {
  const step = ours[amp]
  const what = `PrevMatch step ${amp ? 'with AMP' : 'in float32'}`
  console.log(step ? `${what}: ${ms(step.milliseconds)}, ${Math.round(step.planned / 2 ** 20)} MiB planned` : `${what}: not measured`)
}
for (const { amp, layout, milliseconds, peak_bytes, steps } of read('pytorch')?.variants ?? []) {
  const step = ours[amp]
  const ratio = step ? `, ${(milliseconds / step.milliseconds).toFixed(2)} times ours` : ''
  console.log(
    `PyTorch ${amp ? 'with AMP' : 'in float32'}, ${layout}: ${ms(milliseconds)} (${steps} steps)${ratio}, ` +
      `peak ${peak_bytes > 0 ? `${Math.round(peak_bytes / 2 ** 20)} MiB` : 'not known'}`,
  )
}
const products = read('operators')
const torchRate = read('pytorch')?.matmul_gflops
if (torchRate) console.log(`PyTorch's f16 matrix product: ${Math.round(torchRate)} GFLOP/s`)
if (products) console.log(`our f16 matrix product: ${Math.round(products.peaks.halfProduct ?? 0) || 'not measured'} GFLOP/s`)
for (const { op, shape, gflops, share, kernel } of products?.operators ?? []) {
  const beside = torchRate ? `, ${((100 * gflops) / torchRate).toFixed(0)} % of PyTorch's product` : ''
  console.log(`${op}, ${shape}: ${Math.round(gflops)} GFLOP/s, ${(100 * share).toFixed(0)} % of our limit${beside} (${kernel})`)
}
JS
note "all in $SECONDS s"
exit "$failed"
