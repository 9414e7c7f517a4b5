# shellcheck shell=bash
# Functions shared by the scripts in this directory. Sourced, never run:
#
#   . "$(dirname "$(readlink -f "$0")")/lib.sh"
#
# Environment read here:
#   MINIVMM_CACHE                    cache directory (default: $XDG_CACHE_HOME/minivmm or ~/.cache/minivmm)
#   MINIVMM_DEBIAN_MIRROR            URI of a Debian archive (default: the one this machine's apt uses)
#   MINIVMM_DEBIAN_SECURITY_MIRROR   URI of Debian's security archive (default: the one this machine's apt uses)

# depmod, mkfs and their like live in sbin, which an ordinary user's PATH lacks.
PATH=$PATH:/usr/sbin:/sbin
# Sorting, globbing and tool messages must not depend on the caller's language.
export LC_ALL=C
unset CDPATH GREP_OPTIONS

SCRIPT_NAME=${0##*/}
# shellcheck disable=SC2034  # used by the sourcing scripts
SCRIPTS_DIR=$(dirname "$(readlink -f "$0")")

log() { printf '%s: %s\n' "$SCRIPT_NAME" "$*" >&2; }

# Exit code of a script's own failure; kvm-host raises it so that it cannot be taken for its command's.
FAILURE_CODE=1
die() { log "error: $*"; exit "$FAILURE_CODE"; }

# Print the header comment of the running script: the one place that documents it.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$SCRIPTS_DIR/$SCRIPT_NAME"; }

usage_error() { log "error: $* (see $SCRIPT_NAME --help)"; exit "$([ "$FAILURE_CODE" = 1 ] && echo 2 || echo "$FAILURE_CODE")"; }

# need COMMAND...: the cure for a missing tool is always the same script.
need() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || die "$tool: not found; run scripts/deps first"
	done
}

# ---- temporary files -------------------------------------------------------

# The list, not one directory: every function may want its own.
TEMP_PATHS=()
# shellcheck disable=SC2317,SC2329  # reached through the traps
remove_temp() {
	[ ${#TEMP_PATHS[@]} = 0 ] || rm -rf -- "${TEMP_PATHS[@]}"
	TEMP_PATHS=()
}
trap remove_temp EXIT
# A signal must run the EXIT trap as well; 128+n is what a shell reports for it.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# temp_dir VAR [PARENT]: a private directory that goes with the script. VAR instead of a subshell, whose
# change to TEMP_PATHS would be lost.
temp_dir() {
	local made
	made=$(mktemp -d -p "${2:-${TMPDIR:-/tmp}}" minivmm.XXXXXXXX) || die "cannot make a directory in ${2:-${TMPDIR:-/tmp}}; set TMPDIR to a writable one"
	TEMP_PATHS+=("$made")
	printf -v "$1" %s "$made"
}

# ---- cache -----------------------------------------------------------------
# An entry is a directory with a file "manifest" (sha256sum's format) naming every file in it. It is built beside
# its place and renamed, under the entry's lock: readers see all of it or nothing.

cache_dir() {
	local dir=${MINIVMM_CACHE:-}
	[ -n "$dir" ] || dir=${XDG_CACHE_HOME:-${HOME:?set HOME or MINIVMM_CACHE}/.cache}/minivmm
	mkdir -p -- "$dir" 2>/dev/null || die "$dir: cannot create the cache; set MINIVMM_CACHE to a writable directory"
	readlink -f -- "$dir"
}

# cache_lock NAME: held until the script ends. The descriptor is close-on-exec for nobody: children that outlive
# the script would keep it, so none are left behind.
cache_lock() {
	local file
	file=$(cache_dir)/lock.${1//\//-}
	exec 9>"$file" || die "$file: cannot open; set MINIVMM_CACHE to a writable directory"
	flock -n 9 || { log "waiting for another run to finish with $1"; flock 9; }
}

cache_unlock() { exec 9>&-; }

cache_seal() { # DIR
	(cd "$1" && find . -type f ! -name 'manifest*' -print0 | sort -z | xargs -0 sha256sum >manifest.new && mv manifest.new manifest)
}

cache_valid() { # DIR
	[ -s "$1/manifest" ] && (cd "$1" && sha256sum --quiet --strict --check manifest >/dev/null 2>&1)
}

# cache_publish BUILT DIR: replace whatever is at DIR, which the caller found missing or broken.
cache_publish() {
	cache_seal "$1" || die "$1: cannot write the manifest; is the disk full?"
	chmod 755 "$1"
	if [ -e "$2" ]; then
		local old
		temp_dir old "$(dirname "$2")"
		mv -T -- "$2" "$old/broken"
	fi
	mkdir -p -- "$(dirname "$2")"
	mv -T -- "$1" "$2" || die "$2: cannot put the new cache entry in place"
}

# ---- Debian's archive, by the machine's own configuration -------------------

# archive_uri main|security: the URI that this machine's apt uses for it, or nothing. Without downloaded lists
# apt does not know who signs a source, so a fresh machine is judged by its suites' names instead.
# shellcheck disable=SC2016  # apt's own format
archive_uri() {
	local kind=$1 release uri found=
	case $kind in
	main) found=${MINIVMM_DEBIAN_MIRROR:-} ;;
	security) found=${MINIVMM_DEBIAN_SECURITY_MIRROR:-} ;;
	esac
	if [ -z "$found" ]; then
		while read -r release uri; do
			case $kind:$release in
			main:*-security | main:*/updates | main:*-backports* | main:*-proposed-updates) ;;
			main:* | security:*-security | security:*/updates) found=$uri && break ;;
			esac
		done < <(
			apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Origin: Debian' 'Component: main' 'Identifier: Packages' 2>/dev/null
			apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Component: main' 'Identifier: Packages' 2>/dev/null |
				grep -E '^((old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)(-[a-z]+|/updates)? '
		)
	fi
	printf '%s' "${found%/}"
}

archive_keyring() {
	local file
	for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
		[ -r "$file" ] && printf '%s' "$file" && return
	done
	die "/usr/share/keyrings/debian-archive-keyring.gpg: not found; install the package debian-archive-keyring"
}

# apt_source URI SUITE...: one stanza of a private source list.
apt_source() {
	local uri=$1
	shift
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$uri" "$*" "$(archive_keyring)"
}

# suite_sources SUITE [EXTRA...]: the suite, its security updates where it has them, and EXTRA suites of the main
# archive.
suite_sources() {
	local suite=$1 main security
	main=$(archive_uri main)
	[ -n "$main" ] || die "apt: no Debian archive in this machine's sources; set MINIVMM_DEBIAN_MIRROR to the URI of one"
	apt_source "$main" "$@"
	case $suite in
	sid | forky) ;; # nothing is published there before the release
	*)
		security=$(archive_uri security)
		if [ -n "$security" ]; then
			apt_source "$security" "$suite-security"
		else
			log "no security archive in this machine's sources: using $suite as released"
		fi
		;;
	esac
}

# retry COMMAND...: mirrors are sometimes caught in the middle of an update.
retry() {
	"$@" && return
	log "retrying: $*"
	sleep 2
	"$@"
}

# apt_private DIR SUITE: fetch SUITE's package lists into DIR; "${apt_config[@]}" then makes apt-get and apt-cache
# work on them, and on nothing of this machine's.
apt_private() {
	local dir=$1 suite=$2
	mkdir -p "$dir"/{lists,archives}/partial
	: >"$dir/status"
	suite_sources "$suite" >"$dir/private.sources"
	# Read after the machine's own configuration, whose proxy and credentials stay in force. Its hooks would act on
	# the machine's directories; its pinning is about other packages. _apt cannot enter a private directory.
	cat >"$dir/apt.conf" <<-CONF
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		Dir::Etc::SourceList "$dir/private.sources";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Dir::State "$dir";
		Dir::State::Lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir";
		Dir::Cache::archives "$dir/archives";
		APT::Architecture "amd64";
		#clear APT::Architectures;
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::PDiffs "false";
	CONF
	apt_config=(-q -c "$dir/apt.conf")
	log "fetching $suite's package lists"
	retry apt-get "${apt_config[@]}" update >"$dir/log" 2>&1 ||
		{ cat "$dir/log" >&2; die "apt-get update: failed for $suite; check the network and this machine's apt configuration"; }
}

# ---- initramfs ---------------------------------------------------------------
# The archives are uncompressed "newc"; the kernel takes several of them one after the other.

# modules_in_order KERNEL NAME...: the files of these modules and of what they need, relative to KERNEL/modules,
# in the order to load them. Names are as modinfo prints them or as files are called. A module that is built in or
# that this kernel lacks is left out.
modules_in_order() {
	local kernel=$1
	shift
	awk -v wanted="$*" '
		function name(path) { sub(/.*\//, "", path); sub(/\.ko(\.[a-z0-9]+)?$/, "", path); gsub(/-/, "_", path); return path }
		{ sub(/:$/, "", $1); file[name($1)] = $1; needs[name($1)] = ""; for (i = NF; i > 1; i--) needs[name($1)] = needs[name($1)] " " $i }
		END {
			# A line of modules.dep names everything a module needs, the deepest last.
			n = split(wanted, want, " ")
			for (i = 1; i <= n; i++) {
				gsub(/-/, "_", want[i])
				if (!(want[i] in file)) continue
				m = split(needs[want[i]] " " file[want[i]], list, " ")
				for (j = 1; j <= m; j++) if (!seen[list[j]]++) print list[j]
			}
		}' "$kernel/modules/modules.dep"
}

# module_known KERNEL NAME: whether the kernel has it, as a file or built in.
module_known() {
	local pattern=${2//[-_]/[-_]}
	grep -qE "(^|/)$pattern\.ko(\.[a-z0-9]+)?(:|\$)" "$1/modules/modules.dep" "$1/modules/modules.builtin"
}

# module_copy FILE DEST: uncompressed, because busybox's insmod and a small boot time want it so.
module_copy() {
	case $1 in
	*.xz) xz -dc "$1" >"$2" ;;
	*.zst) zstd -qdc "$1" >"$2" ;;
	*.gz) gzip -dc "$1" >"$2" ;;
	*) cat "$1" >"$2" ;;
	esac || die "$1: cannot unpack this kernel module"
}

# cpio_record NAME MODE MAJOR MINOR: one entry without content, owned by root, to go before a whole archive.
cpio_record() {
	local size=$((${#1} + 1))
	# magic, inode, mode, uid, gid, links, mtime, length, device, node, length of the name, checksum
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
		0 "$2" 0 0 1 0 0 0 0 "$3" "$4" "$size" 0 "$1"
	case $(((110 + size) % 4)) in
	1) printf '\0\0\0' ;;
	2) printf '\0\0' ;;
	3) printf '\0' ;;
	esac
}

# cpio_console: /dev/console, which init's standard streams need; goes before the output of cpio_pack. cpio(1)
# packs only nodes that exist, and making one takes root.
cpio_console() {
	cpio_record dev $((8#040755)) 0 0
	cpio_record dev/console $((8#020600)) 5 1
}

# cpio_pack DIR: an archive of what is in DIR, the same for the same content: sorted, owned by root, without times.
cpio_pack() {
	find "$1" -exec touch -h -d @0 {} +
	(cd "$1" && find . -mindepth 1 -printf '%P\0' | sort -z |
		cpio --quiet --null -o -H newc --reproducible -R +0:+0)
}

# busybox_applets TREE FOLDER: a link in TREE/FOLDER for everything that TREE/FOLDER/busybox can be called.
busybox_applets() {
	local applet
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$1/$2/$applet"
	done
}

# modules_pack KERNEL TREE NAME...: put the modules into TREE/usr/lib/modules and print their paths there, in the
# order to load them.
modules_pack() {
	local kernel=$1 tree=$2 file name
	shift 2
	mkdir -p "$tree/usr/lib/modules"
	while read -r file; do
		name=${file##*/}
		name=${name%%.ko*}.ko
		module_copy "$kernel/modules/$file" "$tree/usr/lib/modules/$name"
		printf '/usr/lib/modules/%s\n' "$name"
	done < <(modules_in_order "$kernel" "$@")
}

# elf_libraries PROGRAM: the libraries it is linked with and its dynamic loader, by the names it asks for; nothing
# for scripts and static programs.
elf_libraries() {
	local magic='' first second third
	IFS='' read -rN 4 magic 2>/dev/null <"$1" || :
	[ "$magic" = $'\177ELF' ] || return 0
	while read -r first second third _; do
		case $first:$second:$third in
		*:'=>':not) log "warning: $1: library $first not found" ;;
		*:'=>':/*) printf '%s\n' "$third" ;;
		/*:'(0x'*) printf '%s\n' "$first" ;;
		esac
	done < <(ldd "$1" 2>/dev/null || :)
}

# until_it_moves LOG STALL COMMAND...: run COMMAND, whose output goes to LOG, and start it anew, three times in all, when
# LOG has not grown for STALL seconds, or the emulated host has failed (exit code 125). For emulated KVM hosts whose QEMU
# scripts/qemu-mended could not mend, where guests of any hypervisor hang now and then, and for those whose own kernel
# falls over when a guest exits (seen a few times; cause unknown).
until_it_moves() {
	local log_file=$1 stall=$2 attempt process size now last code
	shift 2
	for attempt in 1 2 3; do
		"$@" &
		process=$! size=-1 last=$SECONDS
		while kill -0 "$process" 2>/dev/null && ((SECONDS - last <= stall)); do
			sleep 1
			now=$(stat -c %s "$log_file")
			[ "$now" = "$size" ] || { size=$now last=$SECONDS; }
		done
		if ((SECONDS - last <= stall)); then
			code=0
			wait "$process" || code=$?
			[ $code = 125 ] && [ $attempt -lt 3 ] || return "$code"
			echo "# attempt $attempt: the emulated host failed, and is started anew"
			continue
		fi
		kill "$process" 2>/dev/null || :
		wait "$process" || :
		echo "# attempt $attempt: no sign of life for $stall s; the emulated host is started anew"
	done
	return 124
}
