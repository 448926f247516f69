// Probe tries, from inside a container, what a build must not be able to do, and
// prints one line per attempt: its name, and "refused" or how far it came. It is
// harmless where nothing refuses it: what would change the host is asked for in a way
// that the kernel turns down for another reason.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// walls are the answers of something that stands in the way: a filter, a missing
// capability, a read-only or masked file.
var walls = []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EROFS, unix.ENOENT, unix.EAFNOSUPPORT, unix.ESOCKTNOSUPPORT}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "uid" { // of a copy with the set-uid bit
		fmt.Println(os.Geteuid())
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "setcap" { // as setcap(8) does, with the capability to bind low ports
		attribute(os.Args[2], "security.capability", "\x01\x00\x00\x02\x00\x04"+strings.Repeat("\x00", 14))
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "attribute" {
		attribute(os.Args[2], os.Args[3], "x")
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "nest" {
		nest(os.Args[2])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "dial" {
		dial(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "terminals" {
		terminals()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "neighbours" {
		neighbours()
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "flows" {
		flows(os.Args[2])
		return
	}
	inherited()
	for _, a := range slices.Concat(calls, files, ways) {
		err := a.try()
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Printf("%s: done\n", a.name)
		case errors.As(err, &errno) && slices.Contains(walls, errno):
			fmt.Printf("%s: refused\n", a.name)
		default:
			fmt.Printf("%s: reached: %v\n", a.name, err)
		}
	}
	look()
}

func attribute(file, name, value string) {
	if err := unix.Setxattr(file, name, []byte(value), 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// nest makes directories, one in the other, as many as the word says.
func nest(depth string) {
	levels, err := strconv.Atoi(depth)
	for ; err == nil && levels > 0; levels-- {
		if err = unix.Mkdir("d", 0o755); err == nil {
			err = unix.Chdir("d")
		}
	}
	fmt.Println("nested:", err)
}

// dial prints what is said at each address, "name:port", of which all the name has are
// tried.
func dial(addrs []string) {
	for _, addr := range addrs {
		said := "nothing"
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			if text, err := io.ReadAll(c); err == nil && len(text) > 0 {
				said = strings.TrimSpace(string(text))
			}
			c.Close()
		}
		fmt.Printf("%s: %s\n", addr, said)
	}
}

// inherited prints the descriptors that were open when the program began
// (CVE-2024-21626), but for those by which Go's runtime knows its share of the CPU.
func inherited() {
	var open []string
	for fd := range uintptr(1024) {
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
			continue
		}
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && fd > 2 && strings.HasPrefix(path.Base(to), "cpu.") {
			continue
		}
		open = append(open, fmt.Sprint(fd))
	}
	fmt.Printf("descriptors: %s\n", strings.Join(open, " "))
}

type attempt struct {
	name string
	try  func() error
}

// raw makes a system call; each of its arguments is one that the kernel looks at
// after it has asked for the right.
func raw(name string, nr uintptr, args ...uintptr) attempt {
	return attempt{name, func() error {
		var a [6]uintptr
		copy(a[:], args)
		if _, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
			return errno
		}
		return nil
	}}
}

const bad = ^uintptr(0)

var (
	root    = uintptr(unsafe.Pointer(unsafe.StringData("/\x00")))
	garbage = make([]byte, 256)
	zeros   = uintptr(unsafe.Pointer(unsafe.SliceData(garbage)))
)

// unshared tries one namespace, in a process that ends with it.
func unshared(name string, flag int) attempt {
	return attempt{"unshare " + name, func() error {
		cmd := exec.Command("/proc/self/exe", "uid")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: uintptr(flag)}
		return cmd.Run()
	}}
}

var calls = []attempt{
	{"mount", func() error { return unix.Mount("none", "/", "no-such-type", 0, "") }},
	raw("umount", unix.SYS_UMOUNT2, root, bad),
	raw("pivot_root", unix.SYS_PIVOT_ROOT, root, root),
	raw("fsopen", unix.SYS_FSOPEN, zeros, bad),
	raw("open_tree", unix.SYS_OPEN_TREE, bad, zeros, unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH),
	raw("move_mount", unix.SYS_MOVE_MOUNT, bad, zeros, bad, zeros, bad),
	unshared("user", unix.CLONE_NEWUSER), unshared("mount", unix.CLONE_NEWNS), unshared("net", unix.CLONE_NEWNET), unshared("ipc", unix.CLONE_NEWIPC), unshared("uts", unix.CLONE_NEWUTS),
	unshared("cgroup", unix.CLONE_NEWCGROUP),
	{"clone pid", func() error {
		cmd := exec.Command("/proc/self/exe", "uid")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		return cmd.Run()
	}},
	raw("setns", unix.SYS_SETNS, bad, 0),
	raw("bpf", unix.SYS_BPF, bad, zeros, 8),
	raw("perf_event_open", unix.SYS_PERF_EVENT_OPEN, zeros, 0, bad, bad, bad),
	raw("io_uring_setup", unix.SYS_IO_URING_SETUP, 0, zeros),
	raw("userfaultfd", unix.SYS_USERFAULTFD, bad),
	raw("add_key", unix.SYS_ADD_KEY, zeros, zeros, 0, 0, bad),
	raw("request_key", unix.SYS_REQUEST_KEY, zeros, zeros, 0, bad),
	raw("keyctl", unix.SYS_KEYCTL, bad),
	raw("init_module", unix.SYS_INIT_MODULE, zeros, 0, zeros),
	raw("finit_module", unix.SYS_FINIT_MODULE, bad, zeros, 0),
	raw("delete_module", unix.SYS_DELETE_MODULE, zeros, unix.O_NONBLOCK),
	raw("kexec_load", unix.SYS_KEXEC_LOAD, 0, bad, 0, bad),
	raw("reboot", unix.SYS_REBOOT, 0, 0, 0),
	raw("swapon", unix.SYS_SWAPON, zeros, bad),
	raw("acct", unix.SYS_ACCT, root),
	raw("quotactl", unix.SYS_QUOTACTL, bad, zeros, 0, zeros),
	raw("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, bad, zeros, 0),
	raw("fanotify_init", unix.SYS_FANOTIFY_INIT, bad, 0),
	raw("syslog", unix.SYS_SYSLOG, 10 /* size of the kernel's log */, 0, 0),
	raw("sethostname", unix.SYS_SETHOSTNAME, zeros, bad),
	raw("setdomainname", unix.SYS_SETDOMAINNAME, zeros, bad),
	raw("clock_settime", unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, bad),
	{"clock_adjtime", func() error {
		_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &unix.Timex{Modes: unix.ADJ_TICK}) // of no length
		return err
	}},
	raw("personality", unix.SYS_PERSONALITY, 0x0400000), // READ_IMPLIES_EXEC
	raw("vhangup", unix.SYS_VHANGUP),
	{"core dumps allowed", func() error {
		return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Max: unix.RLIM_INFINITY})
	}},
	{"priority raised", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -1) }},
	{"real time", func() error {
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			return err
		}
		return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
	}},
	{"device made", func() error {
		defer os.Remove("/tmp/probe-device")
		return unix.Mknod("/tmp/probe-device", unix.S_IFBLK|0o600, 7<<8)
	}},
	{"raw socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	{"packet socket", func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
	{"vsock", func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
	{"firewall", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.GetsockoptInt(fd, unix.SOL_IP, 64 /* IPT_SO_GET_INFO */)
		return err
	}},
	{"attribute of overlay", func() error { return unix.Setxattr("/tmp", "trusted.overlay.probe", []byte("x"), 0) }},
	{"set-uid gained", gain},
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// gain starts a copy that is another user's, with the set-uid bit, where root has
// left one.
func gain() error {
	out, err := exec.Command("/setuid-probe", "uid").Output()
	if err == nil && strings.TrimSpace(string(out)) == fmt.Sprint(os.Getuid()) {
		return unix.EPERM
	}
	return err
}

// opened asks for a right to a file, and changes nothing.
func opened(name string, flag int) attempt {
	return attempt{"open " + name, func() error {
		f, err := os.OpenFile(name, flag, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if flag != os.O_RDONLY {
			return nil
		}
		if n, err := f.Read(make([]byte, 1)); n == 0 {
			return errors.Join(unix.EACCES, err) // masked: there, but empty
		}
		return nil
	}}
}

var files = []attempt{
	opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
	opened("/proc/sys/kernel/modprobe", os.O_WRONLY),
	opened("/proc/sys/vm/overcommit_memory", os.O_WRONLY),
	opened("/proc/sysrq-trigger", os.O_WRONLY),
	opened("/proc/irq/default_smp_affinity", os.O_WRONLY),
	opened("/proc/kcore", os.O_RDONLY), opened("/proc/keys", os.O_RDONLY), opened("/proc/timer_list", os.O_RDONLY),
	opened("/proc/kmsg", os.O_RDONLY),
	opened("/sys/kernel/uevent_helper", os.O_WRONLY), opened("/sys/kernel/mm/ksm/run", os.O_WRONLY),
	opened("/sys/module/printk/parameters/time", os.O_WRONLY),
	opened("/dev/mem", os.O_RDONLY), opened("/dev/kmsg", os.O_WRONLY), opened("/dev/sda", os.O_RDONLY), opened("/dev/vda", os.O_RDONLY),
	opened("/dev/fuse", os.O_RDWR), opened("/dev/net/tun", os.O_RDWR),
	{"cgroup made", func() error { return once("probe", unix.Mkdir, unix.Rmdir) }},
	{"cgroup written", func() error {
		for _, name := range []string{"memory/memory.limit_in_bytes", "memory.max", "memory/cgroup.procs", "cgroup.procs", "devices/devices.allow", "pids/pids.max"} {
			if f, err := os.OpenFile("/sys/fs/cgroup/"+name, os.O_WRONLY, 0); err == nil {
				return f.Close()
			}
		}
		return unix.EROFS
	}},
}

// once makes a cgroup wherever one can be made, and takes it away.
func once(name string, create func(string, uint32) error, remove func(string) error) error {
	last := error(unix.EROFS)
	for _, dir := range []string{"", "memory/", "pids/", "devices/", "unified/"} {
		file := "/sys/fs/cgroup/" + dir + name
		if err := create(file, 0o755); err == nil {
			return remove(file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			last = err
		}
	}
	return last
}

// ways are what a container of root may do, so that the probe is seen to get through.
var ways = []attempt{
	{"file of another's", func() error {
		defer os.Remove("/tmp/probe-file")
		if err := os.WriteFile("/tmp/probe-file", nil, 0o600); err != nil {
			return err
		}
		return os.Chown("/tmp/probe-file", 4242, 4242)
	}},
	{"chroot", func() error { return unix.Chroot("/") }},
}

// look prints what the process can see.
func look() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
	}
	for line := range bytes.Lines(status) {
		if name, _, _ := strings.Cut(string(line), ":"); strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" || name == "Seccomp" {
			fmt.Print(strings.ReplaceAll(string(line), ":\t", ": "))
		}
	}
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		to, err := os.Readlink("/proc/self/ns/" + ns)
		fmt.Printf("namespace %s: %s %v\n", ns, to, err)
	}
	entries, err := os.ReadDir("/dev")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	fmt.Printf("devices: %s %v\n", strings.Join(names, " "), err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if w := strings.Fields(line); len(w) > 5 {
			fmt.Printf("mount %s: %s\n", w[4], w[5])
		}
	}
}

// most is more terminals than there are for all of a host, and half as many flows.
const most = 5000

// terminals opens pseudo-terminals until there are no more.
func terminals() {
	for n := range most {
		if _, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0); err != nil {
			fmt.Println(n, err)
			return
		}
	}
	fmt.Println(most, "and more")
}

// flows sends a packet to so many ports of an address, each of which the kernel
// tracks for half a minute.
func flows(to string) {
	c, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	for port := range 2 * most {
		// A refusal of an earlier packet may be told to a later one.
		_, _ = c.WriteTo([]byte{0}, &net.UDPAddr{IP: net.ParseIP(to), Port: 10_000 + port})
	}
	fmt.Println("sent")
}

// neighbours sends packets to many addresses of each network that this interface is on,
// and tells how many of them the kernel has asked after.
func neighbours() {
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		fmt.Println(err)
		return
	}
	addrs, err := device.Addrs()
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range most {
		// One for each: a packet whose neighbour is not known waits in its socket's buffer.
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			break
		}
		for _, addr := range addrs {
			ip := slices.Clone(addr.(*net.IPNet).IP)
			ip[len(ip)-2], ip[len(ip)-1] = byte(1+i/250), byte(1+i%250)
			_, _ = c.WriteTo([]byte{0}, &net.UDPAddr{IP: ip, Port: 9, Zone: device.Name})
		}
		c.Close()
	}
	table, err := os.ReadFile("/proc/net/arp")
	fmt.Println(len(addrs), "addresses,", bytes.Count(table, []byte(" eth0\n")), "neighbours", err)
}
