package embedded

import "syscall"

// dieWithParent lets the kernel send sig to the process when the thread that
// starts it ends, however that comes about.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
