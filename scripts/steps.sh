# shellcheck shell=bash
# Steps of scripts/check: run, counted, timed, and two at a time. Sourced after lib.sh, with the directory of the
# steps' logs:
#
#   . "$SCRIPTS_DIR/steps.sh" build/results
#
# A step is "single", "suite" or "boots"; a job is a function that runs steps one after the other; "run_jobs" runs jobs.
# A step prints when it ends, all at once, so that two at a time can be read; its whole output is in
# NAME.log. A line of the file "steps" is left for each: name, seconds, seconds of processors, tests passed, failed,
# skipped; the totals are sums over it.

results=$1
mkdir -p "$results"
: >"$results/steps"

# used_ms: sets `ms` to what the ended children of this shell took of the processors.
used_ms() {
	local file=$results/times.$BASHPID user system time
	times >"$file"
	{ read -r _ && read -r user system; } <"$file"
	rm -f "$file"
	ms=0
	for time in "$user" "$system"; do # as in 1m23.456s
		time=${time%s}
		ms=$((ms + ${time%m*} * 60000 + 10#$(printf '%s' "${time#*m}" | tr -d .)))
	done
}

# run NAME LIMIT COMMAND...: sets `code`, `took` and `used`; what it prints goes to `log`.
run() {
	local limit=$2 start=$SECONDS before ms
	log=$results/${1// /-}.log code=0
	shift 2
	used_ms
	before=$ms
	# In the background, because a shell that waits for its foreground hears no signal; and there SIGINT would be
	# ignored, which tests of signals notice.
	env --default-signal=INT,QUIT timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1 </dev/null &
	running=$!
	wait "$running" || code=$?
	running=
	[ $code != 124 ] || echo "not done within $limit s" >>"$log"
	used_ms
	took=$((SECONDS - start)) used=$(((ms - before + 500) / 1000))
}

# conclude NAME PASSED FAILED SKIPPED [TAP-FILE]: print and keep what the last run was
conclude() {
	{
		flock 8
		printf '== %s: %s s, exit code %s: %s passed, %s failed, %s skipped\n' "$1" "$took" "$code" "$2" "$3" "$4"
		[ -z "${5-}" ] || grep -iE '^not ok |^ok .*# *skip' "$5" | sed 's/^/   /' | head -n 40 || true
		[ "$3" = 0 ] || tail -n 60 "$log"
		printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$took" "$used" "$2" "$3" "$4" >>"$results/steps"
	} 8>"$results/lock"
}

# single NAME LIMIT COMMAND...: a step that is one test; leaves its exit code in `code`
single() {
	run "$@"
	conclude "$1" $((code == 0)) $((code != 0)) 0
}

# counted NAME LIMIT TAP-FILE COMMAND...: run a step that counts its own tests; sets `passed`, `failed` and `skipped`.
# Without a count, or when no test says why it failed, it has failed itself.
counted() {
	local tap=$3
	rm -f "$tap"
	run "$1" "$2" "${@:4}"
	: >>"$tap"
	skipped=$(grep -ciE '^ok .*# *skip' "$tap" || true)
	passed=$(($(grep -c '^ok ' "$tap" || true) - skipped))
	failed=$(grep -c '^not ok ' "$tap" || true)
	if [ $((passed + failed + skipped)) = 0 ] || { [ "$code" != 0 ] && [ "$failed" = 0 ]; }; then failed=$((failed + 1)); fi
}

# suite NAME LIMIT TAP-FILE COMMAND...: a step that counts its own tests
suite() {
	local passed failed skipped
	counted "$@"
	conclude "$1" "$passed" "$failed" "$skipped" "$3"
}

# boots NAME LIMIT TAP-FILE COMMAND...: a suite of stock kernels. Emulated processors stand still now and then, within
# guests of any hypervisor: there a suite that fails has a second try, and the first is shown.
boots() {
	local passed failed skipped first_took=0 first_used=0
	counted "$@"
	if [ "$failed" != 0 ] && ! grep -qwE 'vmx|svm' /proc/cpuinfo; then
		first_took=$took first_used=$used
		{
			flock 8
			printf '== %s: %s s, exit code %s: %s failed; once more, on emulated processors\n' "$1" "$took" "$code" "$failed"
			tail -n 60 "$log"
		} 8>"$results/lock"
		cp "$3" "$3.first"
		cp "$log" "$log.first"
		counted "$@"
	fi
	took=$((took + first_took)) used=$((used + first_used))
	conclude "$1" "$passed" "$failed" "$skipped" "$3"
}

# skip NAME REASON: a step that is not run
skip() {
	printf '== %s: skipped: %s\n' "$1" "$2"
	printf '%s\t0\t0\t0\t0\t1\n' "$1" >>"$results/steps"
}

# ---- two at a time -------------------------------------------------------------

# A job in the background: its end, when this script ends, is the end of the step that it runs.
start_job() { # FUNCTION
	{
		running=
		trap '[ -z "$running" ] || { kill "$running" && wait "$running"; } || :; exit 143' TERM
		"$1"
	} &
}

# run_jobs FUNCTION...: one from the front and one from the back of the list at a time; one at all where there is one
# processor. Jobs that wait much stand in front, and jobs that compute at the back, so that one of each kind runs.
run_jobs() {
	local jobs=("$@") front='' back=''
	[ "$(nproc)" != 1 ] || back=none
	while [ ${#jobs[@]} -gt 0 ]; do
		if [ -z "$front" ]; then
			start_job "${jobs[0]}"
			front=$! jobs=("${jobs[@]:1}")
		elif [ -z "$back" ]; then
			start_job "${jobs[-1]}"
			back=$!
			unset 'jobs[-1]'
		else
			one_job
		fi
	done
	while [ "$front" ] || [ "${back#none}" ]; do one_job; done
}
# Wait for one of run_jobs' two to end. A job succeeds whatever its steps do.
one_job() {
	local ended=
	wait -n -p ended || printf '%s\t0\t0\t0\t1\t0\n' "a job that broke off" >>"$results/steps"
	[ "$ended" != "$front" ] || front=
	[ "$ended" != "$back" ] || back=
}

# shellcheck disable=SC2317,SC2329  # reached through the trap
stop_jobs() {
	local jobs
	mapfile -t jobs < <(jobs -rp)
	[ ${#jobs[@]} = 0 ] || { kill "${jobs[@]}" && wait; } || :
	remove_temp
}
trap stop_jobs EXIT

# totals: a table of the steps' times, and the counts; fails when a test has failed
totals() {
	awk -F '\t' -v took=$SECONDS '
		BEGIN { printf "\n%-40s %8s %16s\n", "", "clock", "processors" }
		$2 + $3 > 0 { printf "%-40s %6d s %14d s\n", $1, $2, $3 }
		{ used += $3; passed += $4; failed += $5; skipped += $6 }
		END {
			printf "%-40s %6d s %14d s\n\n", "all", took, used
			printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
			exit failed > 0
		}' "$results/steps"
}
