package control

// Declared gives the right of every command, by its path.
func Declared() map[string]string {
	rights := map[string]string{}
	root := (&session{}).root()
	for _, cmd := range leaves(root) {
		rights[path(cmd)] = cmd.Annotations[rightKey]
	}
	for _, cmd := range root.Commands() {
		rights[path(cmd)] = cmd.Annotations[rightKey] // groups too
	}
	return rights
}

// The ways to show what comes from outside.
var (
	Age  = age
	Span = span
	Size = size
)
