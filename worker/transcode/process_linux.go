package transcode

import "syscall"

// processAttr makes a group of its own and lets the kernel kill the program when
// the thread that started it ends; setpriv says so again after it has changed
// the user, which cancels it.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
