package control

import (
	"fmt"
	"io"
	"strings"
)

// Manual writes docs/daeploy.1, the manual page: what Reference says of the
// commands, in the language of man(7).
func Manual(w io.Writer) error {
	out := &faultWriter{w: w}
	root := (&session{}).root()
	fmt.Fprint(out, manualHead)
	fmt.Fprintf(out, ".SH NAME\ndaeploy \\- %s\n", roff(root.Short))
	fmt.Fprint(out, ".SH SYNOPSIS\n.B daeploy\n.RI [ \"\\-\\-socket PATH\" ]\n.I COMMAND\n.br\n.B ssh \\-p 2222 daeploy@HOST\n.I COMMAND\n")
	fmt.Fprint(out, ".SH DESCRIPTION\n"+roff(manualText)+"\n.SH COMMANDS\n")
	for _, cmd := range leaves(root) {
		fmt.Fprintf(out, ".SS %s\n.B %s\n.PP\n%s Rights: %s.\n", roff(path(cmd)), roff(synopsis(cmd)), roff(sentence(cmd.Short)), cmd.Annotations[rightKey])
		if cmd.Long != "" {
			fmt.Fprintf(out, "%s\n", roff(cmd.Long))
		}
		for _, f := range flagLines(cmd) {
			fmt.Fprintf(out, ".TP\n.B %s\n%s\n", roff(f[0]), roff(f[1]))
		}
		fmt.Fprintf(out, ".PP\n.EX\n%s\n.EE\n", roff(cmd.Example))
	}
	fmt.Fprint(out, ".SH EXIT STATUS\n"+roff(manualStatus)+"\n")
	fmt.Fprint(out, ".SH FILES\n/etc/daeploy/daeploy.toml, /var/lib/daeploy, /run/daeploy/daeploy.sock\n")
	fmt.Fprint(out, ".SH SEE ALSO\n.BR git\\-push (1),\n.BR ssh (1),\n.BR systemctl (1)\n")
	return out.fault
}

const (
	manualHead = ".\\\" Made from the command tree: go test ./control -update writes it anew.\n.TH DAEPLOY 1 \"\" \"daeploy\" \"User Commands\"\n"
	manualText = "A push of a git repository becomes a container image. The daemon is daeploy serve; every other\n" +
		"command asks it, with the same words over ssh, by the rights of a key, and on the host as root or in\n" +
		"the group daeploy. Data goes to standard output, all else to standard error."
	manualStatus = "0 ok, 1 failure, 2 usage, 3 build failed, 4 not found, 5 denied, 69 containerd or a registry is away,\n" +
		"70 internal, 75 locked or try again, 78 configuration, 130 canceled. run ends with the status of the\n" +
		"process it ran."
)

// roff writes text so that it stands on the page as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
