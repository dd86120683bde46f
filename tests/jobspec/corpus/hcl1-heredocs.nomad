job "hcl1-heredocs" {
  "type" = "batch"
  group "web" {
    task "main" {
      driver = "raw_exec"
      config { command = "/bin/true" }
      template {
        destination = "local/a"
        data = <<EOF
  keep ${X:-y}
  "quotes" and %{ percent
EOF
      }
      template {
        destination = "local/b"
        data = <<-EOF
          one
            two
          EOF
      }
    }
  }
}
