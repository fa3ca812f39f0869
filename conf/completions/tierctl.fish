# fish completion for tierctl(1). Made by `./dev completions` from the parser; do not edit.

# The words so far that are neither options nor their arguments.
function __tierctl_words
    set -l skip
    for word in (commandline -opc)[2..]
        if set -q skip[1]
            set -e skip
            continue
        end
        switch $word
            case --class --count --deadline --event --for --interval --limit --lines --output --pid --policy --property --since
                set skip yes
            case '-*'
            case '*'
                echo $word
        end
    end
end

# Whether these are all of the words.
function __tierctl_at
    test (string join ' ' -- (__tierctl_words) '') = (string join ' ' -- $argv '')
end

# Whether the words begin with these.
function __tierctl_behind
    string match -q -- (string join ' ' -- $argv '')'*' (string join ' ' -- (__tierctl_words) '')
end

complete -c tierctl -f

complete -c tierctl -n '__tierctl_at' -a status -d 'state, tiers, what was moved, what is missing'
complete -c tierctl -n '__tierctl_at' -a plan -d 'what tierd would move next, with the reason of each step'
complete -c tierctl -n '__tierctl_at' -a explain -d 'why a process has the memory that it has: its class, where it is, what was moved'
complete -c tierctl -n '__tierctl_at' -a list -d 'what the machine has: devices, tiers; and who has it: service classes, processes'
complete -c tierctl -n '__tierctl_at' -a show -d 'every property of tierd as KEY=VALUE, for scripts'
complete -c tierctl -n '__tierctl_at' -a history -d 'what tierd did, and why, from the journal'
complete -c tierctl -n '__tierctl_at' -a top -d 'what tierd is doing, as a live view'
complete -c tierctl -n '__tierctl_at' -a report -d 'a page or a picture of what tierd has done lately'
complete -c tierctl -n '__tierctl_at' -a metrics -d 'what tierd knows as OpenMetrics text, for Prometheus'
complete -c tierctl -n '__tierctl_at' -a pause -d 'move nothing for a while'
complete -c tierctl -n '__tierctl_at' -a resume -d 'end a pause'
complete -c tierctl -n '__tierctl_at' -a reload -d 'put a changed policy in force'
complete -c tierctl -n '__tierctl_at' -a provision -d 'persistent memory: what there is, and what becomes memory'
complete -c tierctl -n '__tierctl_at' -a drain -d 'empty a device that is to be removed, and say when that is safe'
complete -c tierctl -n '__tierctl_at' -a check-config -d 'check a policy, and print every problem in it'
complete -c tierctl -n '__tierctl_at' -a cat-config -d 'the policy of all its files as one, with the file and line of each setting'
complete -c tierctl -n '__tierctl_at' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_at' -l json -d 'print one JSON object; sizes are bytes'
complete -c tierctl -n '__tierctl_at' -l offline -d 'do not ask tierd: the memory tiers as the kernel shows them'
complete -c tierctl -n '__tierctl_at' -l version -d 'show program\'s version number and exit'

complete -c tierctl -n '__tierctl_behind status' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind status' -l json -d 'print one JSON object; sizes are bytes'
complete -c tierctl -n '__tierctl_behind status' -l offline -d 'do not ask tierd: the memory tiers as the kernel shows them'

complete -c tierctl -n '__tierctl_behind plan' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind plan' -l json -d 'print one JSON object; a page is 4096 bytes'

complete -c tierctl -n '__tierctl_behind explain' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind explain' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_at list' -a devices -d 'DIMMs, regions, namespaces, dax devices, memory blocks, nodes and tiers'
complete -c tierctl -n '__tierctl_at list' -a tiers -d 'memory tiers, fastest first: nodes, use, latency'
complete -c tierctl -n '__tierctl_at list' -a classes -d 'service classes: who has how much DRAM, and whether promises are kept'
complete -c tierctl -n '__tierctl_at list' -a processes -d 'the largest processes: class, and memory in each kind of tier'
complete -c tierctl -n '__tierctl_at list' -s h -l help -d 'show this help message and exit'

complete -c tierctl -n '__tierctl_behind list devices' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind list devices' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind list tiers' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind list tiers' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind list classes' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind list classes' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind list processes' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind list processes' -l class -x -d 'those of this service class alone'
complete -c tierctl -n '__tierctl_behind list processes' -l limit -x -d 'at most so many, 1 to 200 (default: 20)'
complete -c tierctl -n '__tierctl_behind list processes' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind show' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind show' -s p -l property -x -d 'this property alone; several are separated by commas, or given with several -p'
complete -c tierctl -n '__tierctl_behind show' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind history' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind history' -l since -x -d 'such as "2026-11-30 14:00", 14:00, today, yesterday, "1h ago" or 90s'
complete -c tierctl -n '__tierctl_behind history' -s n -l lines -x -d 'the newest of them, or all (default: 50)'
complete -c tierctl -n '__tierctl_behind history' -l event -x -a 'started stopped restarting state-changed degraded holding tier-appeared tier-vanished tier-resized memory-mode moved feature-missing feature-returned promise-broken promise-kept policy-adopted policy-odd policy-rejected start-failed engine-failed engine-stalled source-chosen bus-lost bus-connected noted traced internal-error conversion-begun conversion-draining conversion-step-done conversion-done conversion-planned conversion-refused conversion-failed conversion-noted conversion-restored conversion-held drained drain-failed device-appeared device-not-read cxl-device-appeared protected released not-protected setting-left' -d 'events of this kind; may be repeated'
complete -c tierctl -n '__tierctl_behind history' -l json -d 'print one JSON object; times are ISO 8601, and values are text as in the journal'

complete -c tierctl -n '__tierctl_behind top' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind top' -l interval -x -d 'from one look to the next, 0.1 to 3600 (default: 1)'
complete -c tierctl -n '__tierctl_behind top' -l batch -d 'print one picture below the other'
complete -c tierctl -n '__tierctl_behind top' -s n -l count -x -d 'print so many, and end (implies --batch)'

complete -c tierctl -n '__tierctl_behind report' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind report' -l output -r -F -d 'to write; ends in .html or .png'
complete -c tierctl -n '__tierctl_behind report' -l since -x -d 'where to begin, such as "14:00" or 20min (default: 1h)'
complete -c tierctl -n '__tierctl_behind report' -l pid -x -d 'look at this process as well, and draw how often it uses its memory, by address'
complete -c tierctl -n '__tierctl_behind report' -l for -x -d 'how long to look at it, such as 90s or 10min; a day at most (default: 60s)'

complete -c tierctl -n '__tierctl_behind metrics' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind metrics' -l output -r -F -d 'write this file, whole or not at all, and print nothing'

complete -c tierctl -n '__tierctl_behind pause' -s h -l help -d 'show this help message and exit'

complete -c tierctl -n '__tierctl_behind resume' -s h -l help -d 'show this help message and exit'

complete -c tierctl -n '__tierctl_behind reload' -s h -l help -d 'show this help message and exit'

complete -c tierctl -n '__tierctl_at provision' -a plan -d 'what the policy\'s requests would do, in words and numbers'
complete -c tierctl -n '__tierctl_at provision' -a apply -d 'do what `provision plan` shows of one request'
complete -c tierctl -n '__tierctl_at provision' -a set -d 'change how much of a region is memory'
complete -c tierctl -n '__tierctl_at provision' -a list -d 'regions, what is free in them, and their namespaces'
complete -c tierctl -n '__tierctl_at provision' -s h -l help -d 'show this help message and exit'

complete -c tierctl -n '__tierctl_behind provision plan' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind provision plan' -l policy -r -F -d 'that file alone: a draft, whose owner and mode do not matter (default: the policy in force)'
complete -c tierctl -n '__tierctl_behind provision plan' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind provision apply' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind provision apply' -l yes -d 'do not ask'

complete -c tierctl -n '__tierctl_behind provision set' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind provision set' -l yes -d 'do not ask'

complete -c tierctl -n '__tierctl_behind provision list' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind provision list' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind drain' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind drain' -l undo -d 'let it be memory again, as the policy asks'
complete -c tierctl -n '__tierctl_behind drain' -l deadline -x -d 'for the memory of one namespace (default: 2 for each GiB, at least 300)'
complete -c tierctl -n '__tierctl_behind drain' -l yes -d 'do not ask'
complete -c tierctl -n '__tierctl_behind drain' -l json -d 'print one JSON object; sizes are bytes'

complete -c tierctl -n '__tierctl_behind check-config' -F
complete -c tierctl -n '__tierctl_behind check-config' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind check-config' -l json -d 'print one JSON object; lines and columns count from 1'

complete -c tierctl -n '__tierctl_behind cat-config' -s h -l help -d 'show this help message and exit'
complete -c tierctl -n '__tierctl_behind cat-config' -l json -d 'print one JSON object; lines and columns count from 1'
