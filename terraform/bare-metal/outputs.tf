output "options" {
  description = "How provision.sh was called, by machine."
  value       = local.options
  depends_on  = [terraform_data.provisioned]
}
