package daeploy

// FindingState says how bad a Finding is.
type FindingState string

// The states of a finding. Only a failure keeps builds, pushes or a restart
// from working.
const (
	FindingOK   FindingState = "ok"
	FindingWarn FindingState = "warn"
	FindingFail FindingState = "fail"
)

// Finding is what a look at one part of the host has come to.
type Finding struct {
	Check   string // a word or two, the same on every host
	State   FindingState
	Message string // what was seen; never empty
	Hint    string // the command that mends it; "" if it is ok
	Err     *Error // of a failure: what a command ends with that meets it; else nil
}

// Fine is a finding of nothing wrong.
func Fine(check, message string) Finding {
	return Finding{Check: check, State: FindingOK, Message: message}
}

// Doubt is a finding of something that should be otherwise.
func Doubt(check, message, hint string) Finding {
	return Finding{Check: check, State: FindingWarn, Message: message, Hint: hint}
}

// Fault is a finding of what an error says.
func Fault(check string, err error) Finding {
	e := Public(err, check)
	f := Finding{Check: check, State: FindingFail, Message: e.Message, Hint: e.Hint, Err: e}
	if e.Err != nil {
		f.Message = e.Error() // who asks is the operator
	}
	return f
}
