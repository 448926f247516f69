package test_test

import (
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/daeploy/daeploy/buildpipeline"
)

// crashPoints are the steps of the crash tests, by the method of buildpipeline's
// ports that each stands before and after. The deploy branch and the pin have one
// each of MoveRefs.
var crashPoints = map[string]string{
	"Source.MoveRefs": "move refs/", "Source.DeleteRefs": "delete refs",
	"Journal.SetBranch": "set branch", "Journal.CreateBuild": "create build", "Journal.UpdateBuild": "update build", "Journal.Settle": "settle",
	"Journal.Drop": "drop", "Journal.Clear": "clear", "Journal.OpenLog": "open log",
	"Log.Say": "say", "Log.Output": "output", "Log.Finish": "finish log",
	"Settings.LendSecrets": "lend secrets",
	"Engine.Open":          "open workspace", "Engine.Scratch": "open scratch", "Engine.OpenRuntime": "open runtime workspace",
	"Engine.Tag": "tag", "Engine.Untag": "untag", "Engine.SweepCaches": "sweep caches",
	"Engine.Spare": "begin spare", "Engine.SweepSpares": "sweep spares",
	"Spare.Put": "spare put", "Spare.Symlink": "spare symlink", "Spare.Keep": "keep spare",
	"Workspace.Image": "image", "Workspace.Prepare": "prepare", "Workspace.Mkdir": "mkdir", "Workspace.Chmod": "chmod", "Workspace.Replace": "replace",
	"Workspace.Remove": "remove", "Workspace.Put": "put", "Workspace.Symlink": "symlink", "Workspace.SetTimes": "set times",
	"Workspace.TakeSpare": "take spare", "Workspace.Touch": "touch",
	"Workspace.Restore": "begin restore", "Workspace.Run": "begin run", "Workspace.Carry": "carry", "Workspace.Start": "start",
	"Workspace.TrimCache": "trim cache", "Workspace.Commit": "commit", "Workspace.StoreLayer": "store layer", "Workspace.Close": "close workspace",
}

// noCrashPoints are the methods that are no steps, by why they are none.
var noCrashPoints = map[string]string{
	"reads": `
		Source.Commit Source.Tree Source.Entry Source.Blobs Source.Ref Source.Descends Source.Pins Source.Unreachable
		Journal.App Journal.Apps Journal.Builds Journal.Build Journal.Unfinished Journal.Dropped Journal.LogSize Journal.Draining
		Journal.CopyLog Journal.LogTail Log.OutputEnd Log.OutputBytes Settings.Variables Settings.Secrets Settings.LentSecrets
		Engine.Check Engine.Room Engine.RoomFor Engine.Leftovers Engine.Find Engine.Caches Engine.InUse Engine.Built Engine.Images
		Workspace.Stat Workspace.Lstat Workspace.Resolve Workspace.ReadFile Workspace.ReadHead Workspace.Started`,
	"what it hands over is a step":             "Workspace.Wait",
	"as Spare.Put":                             "Spare.Mkdir",
	"death does it too":                        "Log.Close Spare.Leave",
	"one transaction, of no build":             "Journal.SetDraining",
	"gitreceive's TestMaintainCutOff":          "Source.Maintain",
	"takes what nothing names":                 "Engine.CollectGarbage",
	"a rename; SweepCaches takes what is left": "Engine.DropUnusedCache",
}

// engineSteps are those that containerd takes.
func engineSteps() (steps []string) {
	for method, step := range crashPoints {
		if strings.HasPrefix(method, "Engine.") || strings.HasPrefix(method, "Workspace.") {
			steps = append(steps, step)
		}
	}
	return steps
}

// TestCrashPoints: F3, F4, F101. Every method by which a build changes anything is a
// step of the crash tests, and one that these come to. Who adds a method says here
// what it is.
func TestCrashPoints(t *testing.T) {
	steps := slices.Concat(crashSteps(t, ""), crashSteps(t, runtimeFile), retentionSteps(t), incrementalSteps(t), spareSteps(t))
	missed := map[string]bool{}
	for _, port := range []any{
		(*buildpipeline.Source)(nil), (*buildpipeline.Journal)(nil), (*buildpipeline.Log)(nil), (*buildpipeline.Settings)(nil),
		(*buildpipeline.Engine)(nil), (*buildpipeline.Workspace)(nil), (*buildpipeline.Spare)(nil),
	} {
		for method := range reflect.TypeOf(port).Elem().Methods() {
			missed[reflect.TypeOf(port).Elem().Name()+"."+method.Name] = true
		}
	}
	for name, step := range crashPoints {
		if !missed[name] {
			t.Errorf("%s is no method of a port", name)
		}
		delete(missed, name)
		if !slices.ContainsFunc(steps, func(came string) bool { return strings.HasPrefix(came, step) }) {
			t.Errorf("no crash test comes to %s, the step %q; they come to %q", name, step, slices.Compact(slices.Sorted(slices.Values(steps))))
		}
	}
	for why, names := range noCrashPoints {
		for name := range strings.FieldsSeq(names) {
			if !missed[name] {
				t.Errorf("%s (%s) is no method of a port, or a crash point", name, why)
			}
			delete(missed, name)
		}
	}
	for name := range missed {
		t.Errorf("%s is neither among crashPoints nor among noCrashPoints", name)
	}
}

// crashSteps are those of TestCrashAtEachStep.
func crashSteps(t *testing.T, appFile string) []string {
	t.Helper()
	b, c := newBench(t, appFile), &crash{dead: make(chan struct{})}
	d, push := b.firstPush(t, c)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, d, c)
	d.end(t)
	return c.steps
}

// retentionSteps are those of TestRetentionCrash.
func retentionSteps(t *testing.T) []string {
	t.Helper()
	b, c := newBench(t, ""), &crash{dead: make(chan struct{})}
	b.history(t, 5)
	b.keep = buildpipeline.Keep{Builds: 3, Images: 2}
	d := b.start(t, c)
	b.wantPast(t, d, threeOfFive)
	d.end(t)
	return c.steps
}

// incrementalSteps are those of TestCrashInIncrementalBuild.
func incrementalSteps(t *testing.T) []string {
	t.Helper()
	b, c := savingBench(t), &crash{dead: make(chan struct{})}
	d, push := b.firstPush(t, c)
	if err := d.pipeline.Receive(d.ctx, push, io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	if err := d.pipeline.Receive(d.ctx, b.secondPush(t), io.Discard)[0]; err != nil {
		t.Fatal(err)
	}
	quiet(t, d, c)
	d.end(t)
	return c.steps
}
