#!/usr/bin/env bash
# The first ten minutes on a GPU: what is right and what is fast, in one command of at most eight minutes, written to a folder:
#
#     bash bench/gpu.sh OUT [--small] [--crop PIXELS] [--batch IMAGES] [--model NAME] [--gpu NAME] [--steps COUNT] \
#         [--size ROWS] [--calls COUNT] [--golden FOLDER] [--torch-device NAME]
#
# In this order, each part's result written before the next one begins: the adapter and its self-test; operators and two
# recorded trainings, in float32 and with AMP; a product of f16 matrices by each kernel, and in PyTorch; what copies,
# dispatches and submissions cost; the PrevMatch step of the Pascal configuration (ResNet-50, crop 321, 8 + 8 images) with
# AMP, by the kernels that the rule takes, with its profile; the same step in PyTorch (python3 with torch); the 20 largest
# calls tuned, and the step again; toggles of Dawn's; the step in float32. What is absent is named and passed over, and a part
# that fails ends nothing. OUT/summary.txt says how each part went, and the figures beside each other. Needs `npm run build`
# and no development packages. --small tries the script itself: tiny sizes, on any adapter, with PyTorch on the CPU. Ends
# with 1 where a part failed.
set -uo pipefail
usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
[ $# -gt 0 ] && [[ $1 != -* ]] || usage
out=$1
shift
crop=321 batch=8 model=resnet50 gpu='' steps=30 profile_steps=5 size=4096 calls=20 golden='' device=cuda small=false
# By which factor the limits of the parts are longer.
patience=1
while [ $# -gt 0 ]; do
  if [ "$1" = --small ]; then
    small=true crop=65 batch=2 model=small steps=3 profile_steps=1 size=128 calls=2 device=cpu patience=8
    shift
    continue
  fi
  [ $# -gt 1 ] || usage
  case $1 in
    --crop) crop=$2 ;;
    --batch) batch=$2 ;;
    --model) model=$2 ;;
    --gpu) gpu=$2 ;;
    --steps) steps=$2 ;;
    --size) size=$2 ;;
    --calls) calls=$2 ;;
    --golden) golden=$2 ;;
    --torch-device) device=$2 ;;
    *) usage ;;
  esac
  shift 2
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
[ -z "$golden" ] || golden=$(cd "$golden" && pwd) || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
if [ -z "$golden" ]; then
  for folder in ../shared/golden shared/golden; do [ ! -d "$folder" ] || golden=$(cd "$folder" && pwd); done
fi
summary=$out/summary.txt
: >"$summary"
failed=0
whole=$((480 * patience))
# What is tuned is kept here, and nothing that was tuned before is used.
export XDG_CACHE_HOME=$out/cache
# Of Dawn's: the step is timed once with each.
toggles=(disable_workgroup_init enable_integer_range_analysis_in_robustness)

note() { echo "$*" | tee -a "$summary"; }

# Megabytes in use on the first GPU, several times a second, until killed.
sample() { while sleep 0.2; do nvidia-smi --id=0 --query-gpu=memory.used --format=csv,noheader,nounits; done; }

# part NAME SECONDS COMMAND...: its output goes to NAME.txt.
part() {
  local name=$1 limit=$((patience * $2)) begin=$SECONDS code sampler='' memory='' last
  shift 2
  [ $((whole - SECONDS)) -ge "$limit" ] || limit=$((whole - SECONDS))
  if [ "$limit" -lt 10 ]; then
    note "SKIPPED $name: the time is over"
    failed=1
    return
  fi
  if command -v nvidia-smi >/dev/null; then
    sample >"$out/$name-memory.txt" 2>/dev/null &
    sampler=$!
  fi
  timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>&1
  code=$?
  if [ -n "$sampler" ]; then
    kill "$sampler" && wait "$sampler"
    memory=", at most $(sort -n "$out/$name-memory.txt" | tail -n 1) MB of the GPU in use"
  fi 2>/dev/null
  last=$(grep -v '^$' "$out/$name.txt" | tail -n 1)
  case $code in
    0) note "ok      $name, $((SECONDS - begin)) s$memory: $last" ;;
    124 | 137) note "TIMEOUT $name, over $limit s: $last" ;;
    *) note "FAILED  $name, exit code $code: $last" ;;
  esac
  [ "$code" -eq 0 ] || failed=1
}

on=()
[ -z "$gpu" ] || on=(--gpu "$gpu")
sizes=(--crop "$crop" --batch "$batch")
# The first Python that has PyTorch.
python='' no_torch='no python3 has torch'
for each in python3 /usr/bin/python3; do
  if [ -z "$python" ] && "$each" -c 'import torch' 2>/dev/null; then python=$each; fi
done
cuda='import sys, torch; sys.exit(not torch.cuda.is_available())'
if [ -n "$python" ] && [ "$device" = cuda ] && ! "$python" -c "$cuda" 2>/dev/null; then
  python='' no_torch='torch finds no CUDA'
fi
# pytorch NAME SECONDS FILE ARGUMENTS...
pytorch() {
  local name=$1 limit=$2 file=$3
  shift 3
  if [ -n "$python" ]; then
    part "$name" "$limit" "$python" "$file" "$@" --device "$device" --json "$out/$name.json"
  else
    note "SKIPPED $name: $no_torch"
  fi
}
# step NAME SECONDS ARGUMENTS...
step() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" node build/bench/bench.js --only 'training step prevmatch' --model "$model" "${sizes[@]}" \
    "${on[@]}" --steps "$steps" --json "$out/$name.json" "$@"
}
# Recorded values that are there, under the names of their files or folders.
recorded() {
  local folder=$out/golden-$1 name
  rm -rf "$folder" && mkdir "$folder"
  shift
  for name in "$@"; do [ ! -e "$golden/$name" ] || ln -s "$golden/$name" "$folder/${name//\//-}"; done
  echo "$folder"
}

part doctor 30 node dist/doctor.js "${on[@]}"
half=true
grep -q 'shader-f16 *yes' "$out/doctor.txt" || half=false
amp=()
if $half; then amp=(--amp); else note 'All in float32, for want of shader-f16'; fi

if [ -z "$golden" ]; then
  note 'SKIPPED golden: there are no recorded values; give --golden FOLDER'
else
  trainings=(tiny-prevmatch/pascal-like tiny-prevmatch/cityscapes-like)
  ! $small || trainings=(tiny-prevmatch/pascal-like)
  part golden 60 node build/test/golden/golden.js "$(recorded all ops.json ops.safetensors "${trainings[@]}")" "${on[@]}"
  if $half; then
    part golden-amp 40 node build/test/golden/golden.js "$(recorded amp "${trainings[@]}")" --amp "${on[@]}"
  fi
fi

if $half; then
  part products 45 node build/bench/gpu/products.js --size "$size" "${on[@]}" --json "$out/products.json"
else
  note 'SKIPPED products: the adapter has no shader-f16'
fi
pytorch pytorch-product 25 bench/gpu/pytorch_product.py --size "$size"
part costs 30 node build/bench/gpu/costs.js "${on[@]}" --json "$out/costs.json"
step step-untuned 60 "${amp[@]}" --profile "$out/step-untuned-trace.json" --profile-steps "$profile_steps"
pytorch pytorch-step 80 bench/pytorch_step.py "${sizes[@]}" --model "$model" --steps "$steps" --seconds 15
# What is measured is kept at once, so that the next part profits from one that ran out of time.
step tune 90 "${amp[@]}" --steps 1 --tune all --calls "$calls"
step step-tuned 40 "${amp[@]}" --tune known --profile "$out/step-tuned-trace.json" --profile-steps "$profile_steps"
for toggle in "${toggles[@]}"; do
  step "step-$toggle" 30 "${amp[@]}" --tune known --toggles "$toggle"
done
! $half || step step-f32 45

node - "$out" "${toggles[@]}" <<'JS' | tee -a "$summary"
const { existsSync, readFileSync } = require('node:fs')
const [, , folder, ...toggles] = process.argv
const read = (name) => {
  const path = `${folder}/${name}.json`
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined
}
const ms = (value) => `${value.toFixed(1)} ms`
const gflops = (value) => `${Math.round(value)} GFLOP/s`
const best = read('products')?.products.reduce((a, b) => (b.gflops > a.gflops ? b : a))
const theirs = read('pytorch-product')
if (best) console.log(`f16 product: ${gflops(best.gflops)} (${best.kernel})`)
if (theirs) {
  const share = best && theirs.dtype === 'torch.float16' ? `, ${(100 * best.gflops / theirs.gflops).toFixed(0)} % of which ours reaches` : ''
  console.log(`PyTorch's product of ${theirs.dtype}: ${gflops(theirs.gflops)}${share}`)
}
const names = ['untuned', 'tuned', ...toggles, 'f32']
const steps = names.flatMap((name) => {
  const report = read(`step-${name}`)
  return report?.steps[0] ? [{ name, amp: report.amp, ...report.steps[0] }] : []
})
for (const { name, amp, milliseconds, planned } of steps)
  console.log(`PrevMatch step, ${name}, ${amp ? 'AMP' : 'f32'}: ${ms(milliseconds)}, ${Math.round(planned / 2 ** 20)} MiB planned`)
for (const { amp, layout, milliseconds, peak_bytes, steps: count } of read('pytorch-step')?.variants ?? []) {
  const own = steps.filter((step) => step.amp === amp).map((step) => step.milliseconds)
  const ratio = own.length > 0 ? `, ${(milliseconds / Math.min(...own)).toFixed(2)} times our fastest` : ''
  console.log(
    `PyTorch's step, ${layout}, ${amp ? 'AMP' : 'f32'}: ${ms(milliseconds)} (${count} steps)${ratio}, ` +
      `peak ${peak_bytes > 0 ? `${Math.round(peak_bytes / 2 ** 20)} MiB` : 'not known'}`,
  )
}
JS
note "all in $SECONDS s"
exit "$failed"
