package transcode

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// unread reports whether a process has received something by TCP that it has not
// read yet. A process that can't be looked at has nothing unread.
func unread(pid int) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	own := map[string]bool{} // inodes
	for _, l := range links {
		to, err := os.Readlink(l)
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		// proc_pid_net(5): sl local remote state tx:rx … inode, the 10th.
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || !own[f[9]] {
				continue
			}
			_, rx, _ := strings.Cut(f[4], ":")
			if n, err := strconv.ParseUint(rx, 16, 64); err == nil && n > 0 {
				return true
			}
		}
	}
	return false
}
