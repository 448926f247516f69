package control

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Reference writes docs/commands.md: every command of the tree and every field
// of what they print with --json.
func Reference(w io.Writer) error {
	out := &faultWriter{w: w}
	fmt.Fprint(out, referenceHead)
	for _, cmd := range leaves((&session{}).root()) {
		fmt.Fprintf(out, "\n### %s\n\n`%s`\n\n%s Rights: %s.\n", path(cmd), synopsis(cmd), sentence(cmd.Short), cmd.Annotations[rightKey])
		if cmd.Long != "" {
			fmt.Fprintf(out, "%s\n", cmd.Long)
		}
		if flags := flagLines(cmd); len(flags) > 0 {
			fmt.Fprint(out, "\n| flag | meaning |\n|---|---|\n")
			for _, f := range flags {
				fmt.Fprintf(out, "| `%s` | %s |\n", f[0], f[1])
			}
		}
		fmt.Fprintf(out, "\n```\n%s\n```\n", cmd.Example)
	}
	fmt.Fprint(out, referenceJSON)
	for _, o := range objects() {
		fmt.Fprintf(out, "\n### %s\n\n| field | meaning |\n|---|---|\n", o.name)
		for f := range reflect.TypeOf(o.zero).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fmt.Fprintf(out, "| `%s` | %s |\n", name, f.Tag.Get("doc"))
		}
	}
	return out.fault
}

type object struct {
	name string
	zero any
}

// objects are all that --json prints, by the names that the commands use.
func objects() []object {
	return []object{
		{"build", buildJSON{}},
		{"step", stepJSON{}},
		{"publication", publicationJSON{}},
		{"app", appJSON{}},
		{"key", keyJSON{}},
		{"variable", variableJSON{}},
		{"secret", secretJSON{}},
		{"event", eventJSON{}},
		{"webhook", webhookJSON{}},
		{"delivery", deliveryJSON{}},
		{"image", imageJSON{}},
		{"builder", builderJSON{}},
		{"status", Status{}},
		{"reload", Reload{}},
		{"gc", gcJSON{}},
		{"freed", freedJSON{}},
		{"finding", findingJSON{}},
		{"version", versionJSON{}},
		{"error", errorBody{}},
	}
}

const referenceHead = "# Commands\n" + `
This page is made from the command tree: ` + "`go test ./control -update`" + ` writes it anew.

The same commands work through two doors, with the same answers:

` + "```" + `
ssh -p 2222 daeploy@HOST COMMAND    with the rights of your key
daeploy COMMAND                     on the host, as root or in the group daeploy: admin
` + "```" + `

On the host, ` + "`daeploy --socket PATH COMMAND`" + ` or the variable ` + "`DAEPLOY_SOCKET`" + ` name another local door than
` + "`/run/daeploy/daeploy.sock`" + `.

stdout is data, stderr is everything else. Rights: **any** key; a key that may at least **read** the app
that the command names (where the app may be left out, the answer covers your apps); a key with the
whole right to the **app**; **admin**.
A key without the right gets the same answer whether the app exists or not. The words keys, apps
and builders alone are the same as keys list and so on.

Exit status: 0 ok, 1 failure, 2 usage, 3 build failed, 4 not found, 5 denied, 69 containerd or a
registry is away, 70 internal, 75 locked or try again, 78 configuration, 130 canceled. ` + "`run`" + `
ends with the status of the process it ran.

## The commands
`

const referenceJSON = `
## JSON

A list prints an array, a single thing an object. Fields may be added; none is renamed, removed or
given another type. Times are RFC 3339 in UTC, and null while they have not come; durations are
seconds, sizes bytes. An unknown text is "", a list without elements []. Characters that a terminal
might act on are written as \u escapes. With --json an error is {"error":{...}} on stderr.
`
