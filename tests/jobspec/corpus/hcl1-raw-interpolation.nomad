job "hcl1-raw-interpolation" {
  "type" = "batch"
  group "web" {
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args = ["-c", "echo ${X:-default} $${Y} ${a == b} ${upper("x")} %{if}"]
      }
      env {
        HOME_DIR = "${env["HOME"]}"
        ESC = "a\tb \x41 \101 \u00e9"
      }
    }
  }
}
